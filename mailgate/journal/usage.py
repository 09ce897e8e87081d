"""What was sent lately and what waits now, counted by what limits go by.

Only looks, for operators: no permit is given by these counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from mailgate.journal.asides import By, meant
from mailgate.journal.tables import WAITING_SQL


@dataclass(frozen=True, slots=True)
class Counted:
    """So many of one kind; a ``domain`` or ``sender`` of "" is any."""

    relay: str
    producer: str
    domain: str
    sender: str
    count: int
    #: First attempts of their recipients, which charge the producer.
    first: int = 0


def sent_since(connection: sa.Connection, since: int) -> list[Counted]:
    """The attempts that ended since then (milliseconds)."""
    sqlite = connection.dialect.name == "sqlite"
    # An address in wire form has one @-sign.
    domain = "substr(r.email, instr(r.email, '@') + 1)" if sqlite else "split_part(r.email, '@', 2)"
    rows = connection.execute(
        sa.text(
            f"SELECT a.relay, m.producer, {domain} AS domain, m.sender, count(*) AS n,"
            " sum(CASE WHEN a.n = 1 THEN 1 ELSE 0 END) AS first"
            " FROM attempts a JOIN recipients r ON r.id = a.recipient_id"
            " JOIN messages m ON m.id = r.message_id"
            f" WHERE a.id > :before AND a.ended_at > :since"
            f" GROUP BY a.relay, m.producer, {domain}, m.sender"
        ),
        {"since": since, "before": _last_before(connection, since)},
    )
    return [Counted(r.relay, r.producer, r.domain, r.sender, r.n, r.first) for r in rows]


def under_way(connection: sa.Connection) -> tuple[dict[str, int], dict[str, int]]:
    """Open conversations by cap, and open connections by relay, where they are counted."""
    places = connection.execute(
        sa.text(
            "SELECT p.key, count(*) FROM places p JOIN recipients r ON r.id = p.recipient_id"
            " AND r.token = p.token AND r.state = 'sending' GROUP BY p.key"
        )
    )
    seats = connection.execute(
        sa.text(
            "SELECT c.relay, sum(c.have) FROM connections c"
            " JOIN leases l ON l.id = c.lease_id GROUP BY c.relay"
        )
    )
    return {key: int(n) for key, n in places}, {relay: int(n) for relay, n in seats}


def waiting(connection: sa.Connection, now: int) -> list[Counted]:
    """The recipients that are due and wait, by the first relay of their route."""
    rows = connection.execute(
        sa.text(
            "SELECT b.route, b.producer, b.domain, count(*) AS n FROM buckets b"
            f" JOIN recipients r ON r.bucket_id = b.id WHERE r.{WAITING_SQL}"
            " AND r.due_at <= :now GROUP BY b.id, b.route, b.producer, b.domain"
        ),
        {"now": now},
    )
    found = []
    for r in rows:
        label = dict(meant(r.domain))
        relay = r.route.split(",")[0]
        domain, sender = label.get(By.DOMAIN, ""), label.get(By.SENDER, "")
        found.append(Counted(relay, r.producer, domain, sender, r.n))
    return found


#: Attempts are numbered as they are written, but for those of transactions side by side.
_ASIDE = 10_000


def _last_before(connection: sa.Connection, since: int) -> int:
    """A number of an attempt below which all ended before ``since``; found by halving."""
    low, high = 0, connection.execute(sa.text("SELECT max(id) FROM attempts")).scalar() or 0
    look = sa.text("SELECT ended_at FROM attempts WHERE id >= :id ORDER BY id LIMIT 1")
    while high - low > _ASIDE:
        middle = (low + high) // 2
        ended = connection.execute(look, {"id": middle}).scalar()
        if ended is not None and ended < since:
            low = middle
        else:
            high = middle
    return int(max(0, low - _ASIDE))
