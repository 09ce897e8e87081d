"""How old a journal's schema is, against what this version of mailgate knows.

Owns the number of the newest migration and the look at the journal's own. Each process
and each command looks once, at its start, so that nothing of Alembic is imported here;
a test holds the number to the migrations. Changes nothing: that is ``schema``.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from mailgate.journal.database import JournalAway, engine_of, plain

#: The newest revision in ``migrations/versions``.
LATEST = "0001"
#: Whether there is a schema at all. Asked by SQLAlchemy's inspector it costs each process a
#: megabyte of memory that it shares with nobody.
_THERE = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'",
    "postgresql": "SELECT to_regclass('alembic_version')",
}


def current(url: str) -> str:
    """The revision that a journal is at; empty when it has no schema yet."""
    engine = engine_of(url, hot=True, patience=None)
    with engine.connect() as connection:
        if connection.exec_driver_sql(_THERE[engine.dialect.name]).scalar() is None:
            return ""
        at = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        return str(at or "")


def behind(url: str) -> str:
    """The journal's revision when it is older than ours, for a message; else empty.

    A newer one serves too: revisions are numbers, and a migration only adds, so that the
    processes of the version before go on (and start again) while others are replaced.
    Raises ``JournalAway`` when the journal cannot be asked. Never makes a SQLite file:
    to look at what is not there leaves nothing behind.
    """
    path = sa.make_url(url).database if url.startswith("sqlite") else None
    if path and not path.startswith((":", "file:")) and not Path(path).exists():
        raise JournalAway(f"there is no file {path}; mailgate db upgrade makes it")
    try:
        at = current(url)
    except DBAPIError as error:
        raise JournalAway(plain(error)) from error
    return "" if at >= LATEST else at or "no revision"
