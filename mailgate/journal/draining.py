"""What is under way of something that is paused, and moving what waits to another lane.

Owns the claims that an operator waits for when a lane, a relay or anything else that can
be paused is drained. Never pauses and never touches a claim: it ends by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from mailgate.journal.buckets import BucketKey, ensure_bucket
from mailgate.journal.database import Database, packed
from mailgate.journal.pauses import What
from mailgate.journal.tables import WAITING_SQL, buckets
from mailgate.model.state import Lane
from mailgate.model.value import replace

#: Waiting recipients moved to another lane in one transaction.
MOST = 2000

_TESTS = {
    What.ALL: "true",
    What.LANE: "b.lane = :name",
    What.PRODUCER: "b.producer = :name",
    # Which relay of its route a conversation is with stands nowhere: any of them may be.
    What.RELAY: "(',' || b.route || ',') LIKE :name",
    What.STREAM: "m.stream = :name",
    What.TEMPLATE: "m.template = :name",
    What.DOMAIN: "r.email LIKE :name",
}


def under_way(connection: sa.Connection, what: What, name: str) -> list[tuple[int, int]]:
    """The claims that stand, as recipients and tokens, of which this may be one.

    Of what sends nothing by itself, such as a schedule, there are none.
    """
    if what not in _TESTS:
        return []
    spelled = {What.RELAY: f"%,{name},%", What.DOMAIN: f"%@{name}"}.get(what, name)
    rows = connection.execute(
        sa.text(
            "SELECT r.id, r.token FROM recipients r JOIN buckets b ON b.id = r.bucket_id"
            " JOIN messages m ON m.id = r.message_id"
            f" WHERE r.state = 'sending' AND {_TESTS[what]}"
        ),
        {} if what is What.ALL else {"name": spelled},
    )
    return [(id_, token) for id_, token in rows]


def standing(
    connection: sa.Connection, database: Database, claims: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Those of ``claims`` that stand still."""
    values = database.rows({"id": "bigint", "token": "bigint"})
    rows = connection.execute(
        sa.text(
            f"SELECT r.id, r.token FROM {values} JOIN recipients r ON r.id = v.id"
            " WHERE r.token = v.token AND r.state = 'sending'"
        ),
        {"rows": packed(claims)},
    )
    return [(id_, token) for id_, token in rows]


def waiting(connection: sa.Connection, lane: Lane) -> int:
    """How many wait in a lane, due or not."""
    found = connection.execute(
        sa.text(
            "SELECT count(*) FROM recipients r JOIN buckets b ON b.id = r.bucket_id"
            f" WHERE b.lane = :lane AND r.{WAITING_SQL}"
        ),
        {"lane": lane.value},
    )
    return int(found.scalar_one())


def move(connection: sa.Connection, database: Database, lane: Lane, to: Lane) -> int:
    """Move up to ``MOST`` waiting recipients of one bucket to the same bucket of another lane.

    Gives how many went; 0 when nothing waits in ``lane`` any more. State, due time and turn
    stay as they are, and so does the token: a claim that comes first is not in its way.
    """
    lock = "" if database.sqlite else " FOR UPDATE SKIP LOCKED"
    for row in connection.execute(sa.select(buckets).where(buckets.c.lane == lane.value)).all():
        key = BucketKey(lane, row.producer, tuple(row.route.split(",")), row.domain)
        values = {"bucket": row.id, "most": MOST}
        rows = connection.execute(
            sa.text(
                f"SELECT id FROM recipients WHERE bucket_id = :bucket AND {WAITING_SQL}"
                f" ORDER BY 0 + id LIMIT :most{lock}"
            ),
            values,
        )
        found = list(rows.scalars())
        if not found:
            continue
        there = ensure_bucket(connection, replace(key, lane=to))
        moved = connection.execute(
            sa.text(
                # They are locked: nothing of them is another by now.
                "UPDATE recipients SET bucket_id = :to WHERE id IN"
                f" (SELECT id FROM {database.rows({'id': 'bigint'})})"
            ),
            {"to": there, "rows": packed([(i,) for i in found])},
        )
        return moved.rowcount
    return 0
