"""Connections to relays that allow so many in all: how many each process has.

Owns the table ``connections``. What a process without a lease had counts for nothing:
it is dead, and its connections with it. Never opens one.
"""

from __future__ import annotations

import sqlalchemy as sa


def take(connection: sa.Connection, lease_id: int, relay: str, have: int, most: int) -> bool:
    """Whether a process that has ``have`` connections may have one more; and so it is written.

    Never while its lease is gone, for then its connections would be counted by nobody.
    """
    values = {"lease": lease_id, "relay": relay}
    if connection.dialect.name == "postgresql":
        connection.execute(
            sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:relay, 9))"), values
        )
    connection.execute(
        sa.text(
            "DELETE FROM connections WHERE relay = :relay"
            " AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.id = connections.lease_id)"
        ),
        values,
    )
    ours, others = connection.execute(
        sa.text(
            "SELECT (SELECT count(*) FROM leases WHERE id = :lease),"
            " (SELECT coalesce(sum(have), 0) FROM connections"
            " WHERE relay = :relay AND lease_id <> :lease)"
        ),
        values,
    ).one()
    if not ours or others + have + 1 > most:
        return False
    write(connection, lease_id, relay, have + 1)
    return True


def write(connection: sa.Connection, lease_id: int, relay: str, have: int) -> None:
    """What a process has now."""
    connection.execute(
        sa.text(
            "INSERT INTO connections (lease_id, relay, have) VALUES (:lease, :relay, :have)"
            " ON CONFLICT (lease_id, relay) DO UPDATE SET have = excluded.have"
        ),
        {"lease": lease_id, "relay": relay, "have": have},
    )
