"""Bringing a journal's schema up to date.

Owns the call of Alembic, which nobody else pays for. The steps themselves are in
``migrations/``; ``revision`` says how old a journal is.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DatabaseError, OperationalError

from mailgate.journal.database import JournalAway, plain
from mailgate.journal.tables import whole


def scripts() -> Path:
    """Where the migrations are: the checkout's, else the copy in the wheel."""
    package = Path(__file__).resolve().parent.parent
    beside = package.parent / "migrations"
    return beside if (beside / "env.py").is_file() else package / "_data" / "migrations"


def _alembic(connection: sa.Connection | None = None) -> Config:
    config = Config()
    # Alembic reads % as interpolation.
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def latest() -> str:
    """The newest revision among the migrations."""
    return ScriptDirectory.from_config(_alembic()).get_current_head() or ""


def upgrade(url: str) -> None:
    """Apply every migration that is missing; safe when several processes do it at once.

    A SQLite file is switched to WAL here, once: processes that each switch it as
    they open it fail now and then with "database is locked". Raises
    ``JournalAway``.
    """
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    try:
        with _alone(engine), engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_lock(7241995)"))
                connection.commit()
            if MigrationContext.configure(connection).get_current_revision() != latest():
                connection.rollback()
                command.upgrade(_alembic(connection), "head")
                connection.commit()
    except DatabaseError as error:
        # Another program's file is a wrong path, and no fault of the migration.
        foreign = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB
        if foreign or isinstance(error, OperationalError):
            raise JournalAway(plain(error)) from error
        raise
    finally:
        engine.dispose()


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    """On SQLite one process at a time: its DDL would wait, and then find the tables made."""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or not path or path == ":memory:":
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.upgrading", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _make_sqlite(engine)
        # The driver by itself begins no transaction before DDL: a process killed in the
        # middle would leave half a migration, whose tables are in the way of the next try.
        sa.event.listen(engine, "connect", _leave_transactions_to_us)
        sa.event.listen(engine, "begin", _begin_immediate)
        yield


def _leave_transactions_to_us(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _make_sqlite(engine: sa.Engine) -> None:
    for attempt in range(20):
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout=10000")
                mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
                if mode != "wal":
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                return
        except sa.exc.OperationalError:
            if attempt == 19:
                raise
            time.sleep(0.1)


def differences(url: str) -> list[object]:
    """Where the schema and the tables of this version disagree; empty is right."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            return list(compare_metadata(context, whole()))
    finally:
        engine.dispose()
