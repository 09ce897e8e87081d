"""The journal's own gauges: what waits, how old it is, who lives.

Owns their queries, which read only the partial indexes of what is unfinished: their
cost follows what waits, not what was ever sent. Only reads, and reads no address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa

from mailgate.journal import outbox, pauses, schedules
from mailgate.journal.breakers import open_by_relay
from mailgate.journal.tables import WAITING_SQL, leases, parked
from mailgate.metrics import families
from mailgate.metrics.tally import Tally
from mailgate.model.state import Lane

_LANES = sa.text(
    "SELECT b.lane AS lane, count(*) AS waiting,"
    " sum(CASE WHEN r.due_at <= :now THEN 1 ELSE 0 END) AS due, min(r.due_at) AS oldest"
    f" FROM recipients r JOIN buckets b ON b.id = r.bucket_id WHERE r.{WAITING_SQL}"
    " GROUP BY b.lane"
)
_SENDING = sa.text("SELECT count(*) FROM recipients WHERE state = 'sending'")
_UNRESOLVED = sa.text(
    "SELECT count(*) FROM recipients WHERE state = :state"
    " AND state IN ('bounced', 'failed', 'uncertain', 'held', 'expired')"
)


def read(
    connection: sa.Connection,
    now: int,
    alive_since: int,
    tally: Tally,
    clocked: Sequence[str] = (),
) -> None:
    """Set the gauges in ``tally``; ``alive_since`` is the last beat of a living lease (ms).

    ``clocked`` are the schedules that there are.
    """
    found = {row.lane: row for row in connection.execute(_LANES, {"now": now})}
    for lane in Lane:
        row = found.get(lane.value)
        tally.set(families.WAITING, (lane.value,), row.waiting if row else 0)
        tally.set(families.DUE, (lane.value,), int(row.due or 0) if row else 0)
        age = max(0, now - row.oldest) / 1000 if row else 0.0
        tally.set(families.OLDEST_DUE, (lane.value,), age)
    tally.set(families.SENDING, (), connection.execute(_SENDING).scalar_one())
    for state in ("held", "uncertain"):
        number = connection.execute(_UNRESOLVED, {"state": state}).scalar_one()
        tally.set(families.UNRESOLVED, (state,), number)
    aside = sa.select(sa.func.count()).select_from(parked).where(parked.c.state == "parked")
    tally.set(families.PARKED, (), connection.execute(aside).scalar_one())
    for (kind, relay), number in open_by_relay(connection, now).items():
        tally.set(families.BREAKERS_OPEN, (kind, relay), number)
    for kind, number in Counter(kind for kind, _ in pauses.names(connection)).items():
        tally.set(families.PAUSED, (kind,), number)
    tally.set(families.SCHEDULES_FAILING, (), schedules.failing(connection, clocked))
    unpublished = outbox.waiting(connection)
    tally.set(families.OUTBOX, (), unpublished.count)
    tally.set(families.OUTBOX_OLDEST, (), unpublished.age(now))
    tally.set(families.OUTBOX_REFUSED, (), len(unpublished.refused))
    alive = connection.execute(
        sa.select(leases.c.kind, sa.func.count().label("number"))
        .where(leases.c.beat_at >= alive_since)
        .group_by(leases.c.kind)
    )
    tally.set(families.LEASES_ALIVE, ("worker",), 0)
    for row in alive:
        tally.set(families.LEASES_ALIVE, (row.kind,), row.number)
