"""A read-only look into a database that is not ours, for schedules.

Owns how a query of an operator's is kept from writing, from running on, and from
returning without end. Knows nothing of the journal.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from mailgate.journal.database import plain


class ForeignError(Exception):
    """The query could not be answered; says why, in the database's own words."""


def rows(
    url: str, query: str, since: int, until: int, *, most: int, timeout: float
) -> list[dict[str, Any]]:
    """The rows of a query, by name of column; ``since`` and ``until`` are milliseconds.

    ``:since`` and ``:until`` are times in UTC: on SQLite texts as its ``datetime()`` gives
    (``2026-05-02 08:00:00``), else with time zone. ``:since_unix`` and ``:until_unix`` are
    whole seconds. Raises ``ForeignError``; also for more than ``most`` rows, and after
    ``timeout`` seconds.
    """
    parsed = sa.make_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    engine = _sqlite(parsed, timeout) if sqlite else _postgresql(parsed, timeout)
    said: dict[str, Any] = {}
    for name, ms in (("since", since), ("until", until)):
        at = datetime.fromtimestamp(ms / 1000, UTC)
        said[name] = f"{at:%Y-%m-%d %H:%M:%S}" if sqlite else at
        said[f"{name}_unix"] = ms // 1000
    statement = sa.text(query)
    names = statement._bindparams
    if strange := set(names) - set(said):
        known = ", ".join(f":{name}" for name in said)
        raise ForeignError(f"the query has :{min(strange)}; there are {known}")
    try:
        with engine.connect() as connection:
            found = connection.execute(statement, {n: said[n] for n in names})
            if not found.returns_rows:
                raise ForeignError("the query returns no rows: it must be a SELECT")
            some = found.mappings().fetchmany(most + 1)
    except sa.exc.DBAPIError as error:
        if isinstance(error.orig, sqlite3.OperationalError) and "interrupted" in str(error.orig):
            raise ForeignError(f"the query took longer than {timeout:g} s") from error
        raise ForeignError(plain(error)) from error
    except SQLAlchemyError as error:
        raise ForeignError(str(error).splitlines()[0]) from error
    finally:
        engine.dispose()
    if len(some) > most:
        raise ForeignError(f"the query returns more than {most} rows")
    return [_row(row) for row in some]


def _sqlite(url: sa.URL, timeout: float) -> sa.Engine:
    ends = time.monotonic() + timeout

    def connect() -> sqlite3.Connection:
        path = (url.database or "").replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, timeout=timeout, check_same_thread=False
        )
        # Each so many steps it is looked whether the time is over.
        connection.set_progress_handler(lambda: time.monotonic() > ends, 10_000)
        return connection

    return sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool)


def _postgresql(url: sa.URL, timeout: float) -> sa.Engine:
    options = f"-c default_transaction_read_only=on -c statement_timeout={int(timeout * 1000)}"
    arguments = {"options": options, "connect_timeout": max(2, int(timeout))}
    return sa.create_engine(url, connect_args=arguments, poolclass=sa.pool.NullPool)


def _row(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in row.items()}
