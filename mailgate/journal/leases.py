"""The leases of processes: who is alive, and what the dead had claimed.

Owns the rows by which a process says that it lives. Never judges what became
of a dead process's claims: ``delivery.recovery`` does, and settles them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mailgate.journal.tables import leases


@dataclass(frozen=True, slots=True)
class Lease:
    """A process as it wrote itself down. ``boot`` tells restarts of the host apart."""

    id: int
    kind: str
    host: str
    boot: str
    pid: int
    spool: str
    beat_at: int = 0


@dataclass(frozen=True, slots=True)
class Orphan:
    """A recipient that a process had claimed when it died."""

    recipient_id: int
    message_id: int
    token: int
    stream: str
    suspect: bool
    deaths: int
    attempts: int
    relay: str
    sensitive: bool = False


def write(connection: sa.Connection, lease: Lease, now: int) -> None:
    connection.execute(
        leases.insert().values(
            id=lease.id,
            kind=lease.kind,
            host=lease.host,
            boot=lease.boot,
            pid=lease.pid,
            spool=lease.spool,
            started_at=now,
            beat_at=now,
        )
    )


def beat(connection: sa.Connection, lease_id: int, now: int) -> bool:
    """Say that we live; false when others have already buried us."""
    found = connection.execute(leases.update().where(leases.c.id == lease_id).values(beat_at=now))
    return found.rowcount == 1


def living(connection: sa.Connection, kind: str, since: int) -> list[int]:
    """The leases of a kind that have beaten since ``since``, in one order for everybody."""
    rows = connection.execute(
        sa.select(leases.c.id)
        .where(leases.c.kind == kind, leases.c.beat_at >= since)
        .order_by(leases.c.id)
    )
    return list(rows.scalars())


def others(connection: sa.Connection, lease_id: int) -> list[Lease]:
    """Every lease but one's own."""
    rows = connection.execute(sa.select(leases).where(leases.c.id != lease_id))
    return [Lease(r.id, r.kind, r.host, r.boot, r.pid, r.spool, r.beat_at) for r in rows]


def claimed_by(connection: sa.Connection, lease_id: int) -> list[Orphan]:
    """What a process holds."""
    rows = connection.execute(
        sa.text(
            "SELECT r.id, r.message_id, r.token, m.stream, r.suspect, r.deaths, r.attempts,"
            " b.route, m.sensitive FROM recipients r JOIN messages m ON m.id = r.message_id"
            " JOIN buckets b ON b.id = r.bucket_id"
            " WHERE r.state = 'sending' AND r.lease_id = :lease ORDER BY r.id"
        ),
        {"lease": lease_id},
    )
    return [_orphan(r) for r in rows]


def unclaimed(connection: sa.Connection) -> list[Orphan]:
    """Recipients in ``sending`` whose claimant has no lease any more."""
    rows = connection.execute(
        sa.text(
            "SELECT r.id, r.message_id, r.token, m.stream, r.suspect, r.deaths, r.attempts,"
            " b.route, m.sensitive FROM recipients r JOIN messages m ON m.id = r.message_id"
            " JOIN buckets b ON b.id = r.bucket_id"
            # By the index of what is being sent: SQLite prefers the order of the ids, and
            # with it everything that was ever sent.
            " WHERE r.state = 'sending' AND NOT EXISTS"
            " (SELECT 1 FROM leases l WHERE l.id = r.lease_id) ORDER BY 0 + r.id LIMIT 500"
        )
    )
    return [_orphan(r) for r in rows]


def remove(connection: sa.Connection, lease_ids: Sequence[int]) -> bool:
    """Forget processes that hold nothing any more; false when one of them still does."""
    for lease_id in lease_ids:
        if connection.dialect.name == "postgresql":
            # Wait for a claim under this lease that is about to commit. A statement of
            # its own: what it waited for is only seen by one that begins afterwards.
            connection.execute(
                sa.text("SELECT id FROM leases WHERE id = :id FOR UPDATE"), {"id": lease_id}
            )
        connection.execute(
            sa.text(
                "DELETE FROM leases WHERE id = :id AND NOT EXISTS (SELECT 1 FROM recipients"
                " WHERE state = 'sending' AND lease_id = :id)"
            ),
            {"id": lease_id},
        )
    left = sa.select(leases.c.id).where(leases.c.id.in_(lease_ids))
    return connection.execute(left).first() is None


def _orphan(r: Any) -> Orphan:
    return Orphan(
        r.id,
        r.message_id,
        r.token,
        r.stream,
        bool(r.suspect),
        r.deaths,
        r.attempts,
        r.route.split(",")[0],
        bool(r.sensitive),
    )
