"""Whether a journal is where a host left it, or an older copy that was restored.

Owns the facts by which that is told: the name of the journal's history, and for each state
directory the moment up to which it has worked with it. Never touches a file: what a host
remembers is ``delivery.watermark``.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from mailgate.journal.database import JournalAway


class JournalSetBack(JournalAway):
    """The journal knows less than this host has seen of it: it was restored from a backup.

    Away, for whoever would send from it: mail that it calls waiting may have been sent.
    """


def name_of(connection: sa.Connection) -> str:
    """The history's name, made at the first look. Runs in a write transaction."""
    connection.execute(
        sa.text(
            "INSERT INTO facts (name, value) VALUES ('history', :value)"
            " ON CONFLICT (name) DO NOTHING"
        ),
        {"value": secrets.token_hex(8)},
    )
    return found(connection)


def found(connection: sa.Connection) -> str:
    """The history's name, only looked for; empty where no worker ever ran."""
    query = sa.text("SELECT value FROM facts WHERE name = 'history'")
    return str(connection.execute(query).scalar() or "")


def reached(connection: sa.Connection, directory: str) -> int:
    """Up to when (ms) a state directory has worked with this journal; 0 if it never has."""
    query = sa.text("SELECT value FROM facts WHERE name = :name")
    found = connection.execute(query, {"name": f"reached:{directory}"}).scalar()
    return int(found or 0)


def reach(connection: sa.Connection, directory: str, now: int) -> None:
    """Write down that it works with this journal now; never goes back, whatever the clock."""
    connection.execute(
        sa.text(
            "INSERT INTO facts (name, value) VALUES (:name, :value)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            " WHERE CAST(facts.value AS BIGINT) < CAST(excluded.value AS BIGINT)"
        ),
        {"name": f"reached:{directory}", "value": str(now)},
    )


def begin_anew(connection: sa.Connection) -> None:
    """Another history from here on: what hosts remember of the one before is void."""
    connection.execute(sa.text("DELETE FROM facts WHERE name = 'history' OR name LIKE 'reached:%'"))
    name_of(connection)
