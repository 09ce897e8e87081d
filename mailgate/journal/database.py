"""The connection to the journal: one thread, one transaction at a time.

Owns how a transaction begins, ends and is repeated on SQLite and PostgreSQL,
and the two spellings of "these rows, sent as one JSON text". Never knows what
the tables mean, and never runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import functools
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from mailgate.model.plain import written

T = TypeVar("T")

#: What the functions of this package work on; for the annotations of others.
Connection = sa.Connection

#: PostgreSQL: deadlock, serialization failure, lock not available. The transaction left nothing.
_REPEATABLE = frozenset({"40P01", "40001", "55P03"})
_TRIES = 6
#: Characters of one JSON text. PostgreSQL reads none of more than 256 MB, and no batch
#: of large letters may become one that can never be written.
MOST_PACKED = 32 * 2**20
#: PostgreSQL: read-only, as a standby is and a server whose disk is nearly full is made.
_AWAY = frozenset({"25006"})
#: PostgreSQL: what its planner leaves alone on a hot connection. Its statements look rows up
#: by keys that they were given; while tables are small it would rather read them, or one of
#: their indexes, from end to end, and a plan of then is kept when they are not small any more.
_HOT = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
#: Its plans are made anew after so many seconds: they were chosen by the size of the tables.
_PLAN_AGAIN = 10.0
#: The database's clock is looked at again after so many seconds: two clocks drift apart.
_LOOK_AGAIN = 30.0


class JournalAway(Exception):
    """The journal cannot be reached or written; nothing of the transaction is known to stand."""


class Database:
    """A journal's database. ``run`` is for coroutines, ``run_now`` for the thread one is in.

    ``hot`` is for the processes at work. It steers PostgreSQL's planner to the indexes,
    whatever its statistics say: plans made while a table was empty cost milliseconds a
    message later. And it waits for no statement longer than ``patience.PATIENCE``, of
    which ``patience`` (seconds) is another.
    """

    def __init__(self, url: str, *, hot: bool = True, patience: float | None = None) -> None:
        self._engine = engine_of(url, hot=hot, patience=patience)
        self.sqlite = self._engine.dialect.name == "sqlite"
        self._begin = "BEGIN IMMEDIATE" if self.sqlite else "BEGIN"
        self._connection: sa.Connection | None = None
        # The journal's clock at a moment of our own clock that nobody sets.
        self._clock_ms, self._looked = 0.0, 0.0
        self._planned = 0.0
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    def now(self) -> int:
        """The journal's clock in milliseconds.

        On PostgreSQL the server's, carried on since the last look by a clock that a
        step of this host's time does not move; on SQLite the host's.
        """
        if not self._looked:
            return int(time.time() * 1000)
        return int(self._clock_ms + (elapsed() - self._looked) * 1000)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Do ``work`` in one write transaction on the journal's thread.

        ``work`` may run several times; it must not touch anything but the
        connection. Raises ``JournalAway`` when the journal cannot be had.
        Cancelling the caller does not undo a transaction that has begun.
        """
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, self.run_now, work))

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Do ``work``, which only reads, without holding a write lock."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, self.read_now, work))

    def run_now(self, work: Callable[[sa.Connection], T]) -> T:
        for attempt in range(_TRIES):
            try:
                with self._lock:
                    return self._transaction(work)
            except DBAPIError as error:
                if not _repeatable(error):
                    raise
                if attempt == _TRIES - 1:
                    raise JournalAway(plain(error)) from error
                # With chance in it: those who met once would meet again.
                time.sleep(0.01 * 2**attempt * (0.5 + random.random()))
        raise AssertionError("unreachable")

    def read_now(self, work: Callable[[sa.Connection], T]) -> T:
        with self._lock:
            connection = self._connected()
            try:
                return work(connection)
            except DBAPIError as error:
                raise self._translated(error) from error

    def _transaction(self, work: Callable[[sa.Connection], T]) -> T:
        connection = self._connected()
        try:
            connection.exec_driver_sql(self._begin)
            result = work(connection)
            connection.exec_driver_sql("COMMIT")
            return result
        except DBAPIError as error:
            self._roll_back(connection)
            raise self._translated(error) from error
        except BaseException:
            self._roll_back(connection)
            raise

    def _roll_back(self, connection: sa.Connection) -> None:
        try:
            if not connection.invalidated:
                connection.exec_driver_sql("ROLLBACK")
        except DBAPIError:
            # Nothing was open, or the connection is gone: a new one is clean either way.
            self._drop()

    def _translated(self, error: DBAPIError) -> Exception:
        """What the caller is told: away, or the fault itself (a bug, a duplicate key)."""
        if _repeatable(error):
            return error
        if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            return error  # no such table, wrong SQL: not the disk, nor a lock
        away = getattr(error.orig, "sqlstate", None) in _AWAY or error.connection_invalidated
        if away or isinstance(error, OperationalError | InterfaceError):
            self._drop()
            return JournalAway(plain(error))
        return error

    def _connected(self) -> sa.Connection:
        if self._connection is None or self._connection.invalidated:
            self._drop()
            try:
                self._connection = self._engine.connect()
                self._planned = elapsed()
                self._look(self._connection)
            except DBAPIError as error:
                self._drop()
                raise JournalAway(plain(error)) from error
        elif self._looked:
            now = elapsed()
            if now - self._looked > _LOOK_AGAIN:
                self._set_clock(self._connection)
            if now - self._planned > _PLAN_AGAIN:
                self._plan_again(self._connection)
        return self._connection

    def _look(self, connection: sa.Connection) -> None:
        if self.sqlite:
            return
        before = elapsed()
        theirs = connection.exec_driver_sql(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
        ).scalar_one()
        self._clock_ms, self._looked = float(theirs), (before + elapsed()) / 2

    def set_clock(self) -> None:
        """Look at the database's clock again, as with each heartbeat; raises ``JournalAway``."""
        with self._lock:
            self._set_clock(self._connected())

    def _set_clock(self, connection: sa.Connection) -> None:
        try:
            self._look(connection)
        except DBAPIError as error:
            raise self._translated(error) from error

    def _plan_again(self, connection: sa.Connection) -> None:
        try:
            connection.exec_driver_sql("DISCARD PLANS")
        except DBAPIError as error:
            raise self._translated(error) from error
        self._planned = elapsed()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except Exception:  # noqa: BLE001, S110 - it is being thrown away
                pass

    def close(self) -> None:
        """Let the current transaction end, then close."""
        self._thread.shutdown(wait=True)
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def rows(
        self,
        columns: Mapping[str, str],
        *,
        name: str = "v",
        param: str = "rows",
        once: bool = True,
    ) -> str:
        """A FROM item that reads the JSON array in ``:param`` as rows.

        ``columns`` maps a column to ``bigint``, ``text``, ``boolean`` or ``json``.
        One JSON text costs a tenth of a list of parameters. Values come by
        position in each inner array, so that keys are not repeated in every row.
        ``once``: PostgreSQL takes the values out of the text once, however it goes about a
        join, and not for each row that it compares them with; it holds all of them meanwhile.
        """
        if self.sqlite:
            # The element's own JSON for a nested value; SQLite has no booleans.
            picks = ", ".join(
                f"json_extract(value, '$[{i}]') AS {column}" for i, column in enumerate(columns)
            )
            return f"(SELECT {picks} FROM json_each(:{param})) AS {name}"
        picks = ", ".join(
            f"(value->>{i})::{kind} AS {column}" for i, (column, kind) in enumerate(columns.items())
        )
        return (
            f"(SELECT {picks} FROM jsonb_array_elements(CAST(:{param} AS jsonb))"
            # A sort that is one to the planner keeps what is below it.
            f" WITH ORDINALITY AS e(value, ord) ORDER BY {'0 + ' * once}ord) AS {name}"
        )

    def among(self, column: str, rows: str) -> str:
        """A condition: the indexed ``column`` is among the ``id`` of ``rows``.

        PostgreSQL looks each up in the index, whatever it believes of the table. By ``IN`` it
        reads all of a table of which it believes that it is empty: it does so from when it
        has looked at one whose rows were all gone, until it looks again.
        """
        if self.sqlite:
            return f"{column} IN (SELECT id FROM {rows})"
        return f"{column} = ANY (ARRAY(SELECT id FROM {rows}))"

    def join(self, table: str, alias: str, column: str, to: str) -> str:
        """Join the row of ``table`` whose indexed ``column`` is ``to``, of an item before it.

        As with ``among`` PostgreSQL looks it up in the index, whatever it believes.
        """
        if self.sqlite:
            return f"JOIN {table} {alias} ON {alias}.{column} = {to}"
        # What has an offset is not taken apart.
        return f"CROSS JOIN LATERAL (SELECT * FROM {table} WHERE {column} = {to} OFFSET 0) {alias}"


@functools.lru_cache(maxsize=8)
def engine_of(url: str, *, hot: bool, patience: float | None) -> sa.Engine:
    """What connects to ``url`` as ``Database`` says. It holds no connection itself.

    Made once: a fork inherits it, where making another would copy 2 MiB of what it touches.
    """
    connect_args: dict[str, Any]
    sqlite = sa.make_url(url).get_backend_name() == "sqlite"
    if sqlite:
        connect_args = {"timeout": 30.0, "check_same_thread": False}
    else:
        # Here and not above: whoever has SQLite needs no psycopg.
        from mailgate.journal import patience as waits

        most = patience or (waits.PATIENCE if hot else waits.LONG)
        planner = " ".join(f"-c {name}=off" for name in (*_HOT * hot, "jit"))
        options = f"{planner} {waits.options(most)}"
        connect_args = {"options": options, **waits.arguments(most)}
    # AUTOCOMMIT: BEGIN and COMMIT are ours, so that SQLite's is BEGIN IMMEDIATE
    # (a transaction that reads first and then writes fails at once when another
    # has written, however long the timeout).
    engine = sa.create_engine(
        url, isolation_level="AUTOCOMMIT", connect_args=connect_args, poolclass=sa.pool.NullPool
    )
    if sqlite:
        sa.event.listen(engine, "connect", _sqlite_pragmas)
    else:
        waits.make_patient(engine, most)
    return engine


def surely(condition: str) -> str:
    """A condition on rows that are named by number, of which no database makes more than that.

    By no index of it are they looked for, and it counts as true of half the rows: both
    databases believe that next to nothing waits or is being sent, and would read all that
    does for every batch of numbers.
    """
    return f"CASE WHEN {condition} THEN true ELSE false END"


def packed(rows: Sequence[Sequence[Any]]) -> str:
    """The JSON text that ``Database.rows`` reads."""
    return written(rows)


def packs(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """``packed`` in as many texts as it takes to keep each below ``MOST_PACKED``."""
    text = packed(rows)
    if len(text) <= MOST_PACKED or len(rows) < 2:
        yield text
        return
    yield from packs(rows[: len(rows) // 2])
    yield from packs(rows[len(rows) // 2 :])


def elapsed() -> float:
    """Seconds on a clock that nobody sets and that runs on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _sqlite_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # WAL itself is set once, by the migration: two processes that switch a file
    # at the same moment get "database is locked", whatever the timeout.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA temp_store=MEMORY")
    # Whatever another process writes empties this cache: more than a transaction reads is
    # memory for nothing. A quarter of what SQLite takes costs nothing that can be measured.
    cursor.execute("PRAGMA cache_size=-512")
    cursor.close()


def _repeatable(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) in _REPEATABLE


def plain(error: DBAPIError) -> str:
    """The driver's own words, without the statement and its parameters (personal data)."""
    lines = str(error.orig).strip().splitlines()
    return lines[0] if lines else type(error.orig).__name__
