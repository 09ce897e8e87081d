"""What a journal says of itself, for ``mailgate doctor``.

Owns which settings of SQLite and PostgreSQL matter to mail that must not be lost, and
the try whether it can be written. Never changes a row.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import sqlalchemy as sa

from mailgate.journal import outbox, revision
from mailgate.journal.database import Database, JournalAway, plain
from mailgate.journal.facts import CLEANED, noted
from mailgate.journal.tables import leases, messages, parked

#: SQLite's ``PRAGMA synchronous`` as numbers.
_FULL = 2


@dataclass(frozen=True, slots=True)
class JournalLook:
    """``ahead`` is the journal's clock less ours (seconds; 0 on SQLite).

    ``behind`` is its revision when that is not ``latest``. ``unsafe`` names settings by
    which a crash may lose what was committed, ``unwritable`` why it takes no writes.
    """

    program: str
    version: str
    latest: str
    behind: str = ""
    unsafe: tuple[str, ...] = ()
    unwritable: str = ""
    ahead: float = 0.0


@dataclass(frozen=True, slots=True)
class Population:
    """Worker processes that beat, those that fell silent without an end, and what is parked.

    ``unclean`` is the time since the last clean-up, or since the first message where
    there was none (seconds).
    """

    alive: int
    silent: int
    parked: int
    unclean: float = 0.0


def look(url: str) -> JournalLook:
    """Ask and try it; raises ``JournalAway`` when it cannot be asked."""
    behind = revision.behind(url)
    with contextlib.closing(Database(url, hot=False)) as database:
        read = _sqlite if database.sqlite else _postgresql
        version, unsafe, ahead = database.read_now(read)
        return JournalLook(
            program="SQLite" if database.sqlite else "PostgreSQL",
            version=version,
            latest=revision.LATEST,
            behind=behind,
            unsafe=unsafe,
            unwritable="" if behind else _unwritable(database),
            ahead=ahead,
        )


def population(url: str, lease: float) -> Population:
    """Who lives, by leases of ``lease`` seconds; raises ``JournalAway``."""
    with contextlib.closing(Database(url, hot=False)) as database:

        def count(connection: sa.Connection) -> Population:
            since = database.now() - int(lease * 1000)
            of = sa.select(sa.func.count()).select_from(leases).where(leases.c.kind == "worker")
            aside = sa.select(sa.func.count()).select_from(parked)
            now = database.now()
            oldest = sa.select(messages.c.accepted_at).order_by(messages.c.id).limit(1)
            first = connection.execute(oldest).scalar() or now
            cleaned = noted(connection, CLEANED)
            return Population(
                alive=connection.execute(of.where(leases.c.beat_at >= since)).scalar_one(),
                silent=connection.execute(of.where(leases.c.beat_at < since)).scalar_one(),
                parked=connection.execute(aside.where(parked.c.state == "parked")).scalar_one(),
                unclean=(now - (cleaned["at"] if cleaned else first)) / 1000,
            )

        return database.read_now(count)


@dataclass(frozen=True, slots=True)
class Untold:
    """Events that are not published yet: how many, for how long (s), and of whom none are."""

    count: int
    age: float
    refused: tuple[str, ...]


def untold(url: str) -> Untold:
    """What producers do not know yet; raises ``JournalAway``."""
    with contextlib.closing(Database(url, hot=False)) as database:
        found = database.read_now(outbox.waiting)
        return Untold(found.count, found.age(database.now()), found.refused)


def _sqlite(connection: sa.Connection) -> tuple[str, tuple[str, ...], float]:
    def said(pragma: str) -> str:
        return str(connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one())

    unsafe = []
    if (mode := said("journal_mode")) != "wal":
        unsafe.append(f"journal_mode is {mode} and not wal")
    if int(said("synchronous")) < _FULL:
        unsafe.append("synchronous is not full")
    version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
    return str(version), tuple(unsafe), 0.0


def _postgresql(connection: sa.Connection) -> tuple[str, tuple[str, ...], float]:
    def said(name: str) -> str:
        return str(connection.exec_driver_sql(f"SHOW {name}").scalar_one())

    unsafe = [f"{name} is off" for name in ("fsync", "synchronous_commit") if said(name) == "off"]
    before = time.time()
    theirs = connection.exec_driver_sql(
        "SELECT extract(epoch FROM clock_timestamp())::float8"
    ).scalar_one()
    ahead = float(theirs) - (before + time.time()) / 2
    return said("server_version").split(" ")[0], tuple(unsafe), ahead


def _unwritable(database: Database) -> str:
    """A write that touches no row still needs the lock, the right, and no standby."""
    try:
        nothing = leases.update().where(sa.false()).values(beat_at=leases.c.beat_at)
        database.run_now(lambda c: c.execute(nothing))
    except JournalAway as error:
        return str(error)
    except sa.exc.DBAPIError as error:
        return plain(error)
    return ""
