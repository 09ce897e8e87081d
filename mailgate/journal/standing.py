"""How things stand, for people: states, lanes, what came and went lately, who lives.

Only reads. The lately is read from the end of the tables, whose numbers follow time: no
index on time is kept for it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mailgate.journal import digest_list
from mailgate.journal.facts import CLEANED, noted
from mailgate.journal.tables import WAITING_SQL, events, leases, parked
from mailgate.model.ids import first_of
from mailgate.model.state import Lane

#: What "lately" means (seconds).
LATELY = 60

_STATES = sa.text("SELECT state, count(*) FROM recipients GROUP BY state ORDER BY state")
_LANES = sa.text(
    "SELECT b.lane AS lane, count(*) AS waiting,"
    " sum(CASE WHEN r.due_at <= :now THEN 1 ELSE 0 END) AS due, min(r.due_at) AS oldest"
    f" FROM recipients r JOIN buckets b ON b.id = r.bucket_id WHERE r.{WAITING_SQL}"
    " GROUP BY b.lane"
)
_SENDING = sa.text(
    "SELECT b.lane, count(*) FROM recipients r JOIN buckets b ON b.id = r.bucket_id"
    " WHERE r.state = 'sending' GROUP BY b.lane"
)
_PAUSED = sa.text("SELECT name, who, reason FROM pauses WHERE kind = 'lane'")
_ACCEPTED = sa.text("SELECT COALESCE(sum(recipients), 0) FROM messages WHERE id >= :first")
_KINDS = sa.text(
    "SELECT kind, count(*) FROM events WHERE id >= :first AND at >= :since"
    " AND recipient_id IS NOT NULL GROUP BY kind"
)


def overview(connection: sa.Connection, now: int) -> dict[str, Any]:
    """The dashboard: states, lanes, the last minute, worker processes, what is parked."""
    alive = connection.execute(sa.select(leases).order_by(leases.c.id)).all()
    aside = sa.select(sa.func.count()).select_from(parked).where(parked.c.state == "parked")
    rows = lanes(connection, now)
    return {
        "states": _counted(connection, _STATES),
        "lanes": {
            row["lane"]: {k: row[k] for k in ("waiting", "due", "oldest_due_s", "under_way")}
            for row in rows
            if row["waiting"] or row["under_way"]
        },
        "last_minute": lately(connection, now),
        "workers": [
            {
                "host": row.host,
                "pid": row.pid,
                "beat_s": max(0, now - row.beat_at) / 1000,
                "started_at": row.started_at,
            }
            for row in alive
        ],
        "parked": connection.execute(aside).scalar_one(),
        "digests": digest_list.standing(connection),
        "cleaned": noted(connection, CLEANED),
    }


def lanes(connection: sa.Connection, now: int) -> list[dict[str, Any]]:
    """Each lane: what waits, what of it is due and since when, what is under way."""
    found = {row.lane: row for row in connection.execute(_LANES, {"now": now})}
    sending = _counted(connection, _SENDING)
    paused = {name: f"{who}: {reason}" for name, who, reason in connection.execute(_PAUSED)}
    out = []
    for lane in Lane:
        row = found.get(lane.value)
        oldest = max(0, now - row.oldest) / 1000 if row and row.oldest else 0
        item: dict[str, Any] = {"lane": lane.value, "waiting": row.waiting if row else 0}
        item |= {"due": int(row.due or 0) if row else 0, "oldest_due_s": oldest}
        item |= {"under_way": sending.get(lane.value, 0), "paused": paused.get(lane.value)}
        out.append(item)
    return out


def lately(connection: sa.Connection, now: int) -> dict[str, int]:
    """Recipients of the last minute: accepted, sent, deferred, failed for good, uncertain."""
    since = now - LATELY * 1000
    accepted = connection.execute(_ACCEPTED, {"first": first_of(since)}).scalar_one()
    values = {"first": _first_event(connection, since), "since": since}
    kinds = _counted(connection, _KINDS, **values)
    return {
        "accepted": int(accepted),
        "sent": kinds.get("sent", 0),
        "deferred": kinds.get("deferred", 0),
        "failed": kinds.get("failed", 0) + kinds.get("bounced", 0),
        "uncertain": kinds.get("uncertain", 0),
    }


def _counted(connection: sa.Connection, query: sa.TextClause, **values: int) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(query, values)}


def _first_event(connection: sa.Connection, since: int) -> int:
    """The number from which events are younger than ``since``: halving, by the primary key."""
    e = events.c
    low, high = connection.execute(sa.select(sa.func.min(e.id), sa.func.max(e.id))).one()
    if low is None:
        return 0
    high += 1
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(
            sa.select(e.id, e.at).where(e.id >= middle).order_by(e.id).limit(1)
        ).first()
        if found is not None and found.at < since:
            low = found.id + 1
        else:
            high = middle
    return int(low)


def seen(connection: sa.Connection, kind: str, name: str) -> bool:
    """Whether any mail that is on record has this producer, relay, stream or template."""
    return bool(connection.execute(_SEEN[kind], {"name": name}).scalar_one())


# Buckets are few and outlive their mail; of a stream or template there is no other record.
_SEEN = {
    "producer": sa.text("SELECT EXISTS (SELECT 1 FROM buckets WHERE producer = :name)"),
    "relay": sa.text(
        "SELECT EXISTS (SELECT 1 FROM buckets WHERE ',' || route || ',' LIKE '%,' || :name || ',%')"
    ),
    "stream": sa.text("SELECT EXISTS (SELECT 1 FROM messages WHERE stream = :name)"),
    "template": sa.text("SELECT EXISTS (SELECT 1 FROM messages WHERE template = :name)"),
}
