"""Clocks that jump, under one worker and not under the others.

Owns the clock that a process is given: ``clock/sitecustomize.py`` adds to ``time.time``
what a file says, which the fault changes while the process runs. The clocks that nobody
sets (``CLOCK_MONOTONIC``, ``CLOCK_BOOTTIME``) are real. And the clock of PostgreSQL: a
function before its own in the search path adds what a table says.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from bench.faults.fault import Run, fault
from tests.acceptance.stage import gaps, mails, until
from tests.acceptance.stage.books import Journal
from tests.acceptance.stage.stage import ROOT

HOUR = 3600.0
#: What is deferred is tried again after this (seconds).
RETRY = 2.0
#: Each time, so often in all: more than there are jumps that make it due at once.
TRIES = 6
SETTINGS = {
    "intake.batch": "20",
    "worker.conversations": "10",
    "worker.lease": "3s",
    "streams.transactional.retry.first": "2s",
    "streams.transactional.retry.factor": "1",
    "streams.transactional.retry.cap": "2s",
    "streams.transactional.retry.jitter": "0",
    "breakers.relay.failures": "1000",
    "breakers.domain.failures": "1000",
}


class Clock:
    """What processes with ``env`` read for the time of day."""

    def __init__(self, directory: Path, name: str) -> None:
        self._file = directory / f"clock-{name}"
        self.set(0.0)
        here = Path(__file__).with_name("clock")
        self.env = {"FAULTS_CLOCK": str(self._file), "PYTHONPATH": f"{here}:{ROOT}"}

    def set(self, seconds: float) -> None:
        """Jump: so far ahead of the true time, or behind it."""
        if self._file.exists():
            with self._file.open("r+b") as file:
                file.write(struct.pack("d", seconds))
        else:
            self._file.write_bytes(struct.pack("d", seconds))


class ServerClock:
    """What PostgreSQL says of the time to whoever asks in one database."""

    env: Mapping[str, str] = {}

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        name = journal.one("SELECT current_database()")
        journal.execute("CREATE SCHEMA moved")
        journal.execute("CREATE TABLE moved.clock AS SELECT interval '0' AS ahead")
        journal.execute(
            "CREATE FUNCTION moved.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
            " 'SELECT pg_catalog.clock_timestamp() + ahead FROM moved.clock'"
        )
        journal.execute(f'ALTER DATABASE "{name}" SET search_path = moved, public, pg_catalog')

    def set(self, seconds: float) -> None:
        ahead = timedelta(seconds=seconds)
        self._journal.execute("UPDATE moved.clock SET ahead = :ahead", ahead=ahead)
        # Else the fault would do nothing, and nobody would see it.
        told = self._journal.one("SELECT clock_timestamp() - pg_catalog.clock_timestamp()")
        assert abs(told - ahead) < timedelta(seconds=0.1), told


#: Which worker's clock jumps, and how far it is ahead then (seconds).
ONE_BY_ONE = (
    (0, HOUR), (0, -HOUR), (1, HOUR), (1, 0.0), (0, HOUR), (1, HOUR), (0, 0.0), (1, 0.0),
)  # fmt: skip
#: The clock of the one host. What is deferred while it is an hour ahead waits until it is
#: that late again, so that it ends ahead.
ALL = ((0, HOUR), (0, 0.0), (0, -HOUR), (0, 0.0), (0, HOUR))


def jump(
    run: Run,
    journal: str,
    jumps: Sequence[tuple[int, float]],
    *,
    zone: str = "UTC",
    servers: bool = False,
    change: datetime | None = None,
) -> None:
    """Deferred mail waits two seconds; meanwhile the clocks jump.

    The clocks are those of two workers; with SQLite that of the host; with ``servers``
    that of PostgreSQL alone. Before the first mail they are set to three seconds before
    ``change``, if there is one.
    """
    many = run.many(1000, 100)
    plans = {"soft": ["451 4.7.1 Greylisted"] * (TRIES - 1) + ["250"], "n": ["slow 0.02"]}
    scene = run.stage("valkey", journal, settings=SETTINGS, plans=plans)
    scene.environment["TZ"] = zone
    clocks: list[Clock | ServerClock] = [Clock(scene.directory, "a"), Clock(scene.directory, "b")]
    if servers:
        clocks = [ServerClock(scene.journal)]
    if servers or journal == "sqlite":
        clocks = clocks[:1] * 2
    scene.begin("intake", env=clocks[0].env)
    for n, clock in enumerate(clocks):
        options = ("--concurrency", "1", "--name", f"clock{n}")
        scene.begin("worker", *options, env=clock.env)
    scene.wait_for_workers(2)
    living = _leases(scene.journal)
    documents = [*mails(many), *mails(20, to="soft")]
    run.random.shuffle(documents)
    ahead = change.timestamp() - 3 - time.time() if change else 0.0
    if change:
        clocks[0].set(ahead)
    scene.publish(documents)
    until(lambda: len(scene.relay.taken()) >= many // 10, 60, scene.logs)
    for which, seconds in jumps:
        run.strike()
        clocks[which].set(seconds)
        run.lift()
        time.sleep(0.7)
    if not jumps:
        run.strike()
        run.lift()
    scene.wait_finished(many + 20, 90)
    if change:
        over = time.time() + ahead - change.timestamp()
        run.note(seconds_past_the_change=round(over, 1))
        assert over > 0, "all was done before the change"
    run.recovered(scene)
    book = [c for c in scene.relay.book() if c.recipient.startswith("soft")]
    waits = {who: gaps(book, who) for who in {c.recipient for c in book}}
    run.note(jumps=len(jumps), attempts_of_20_deferred=len(book))
    run.note(soonest_try_after=round(min(map(min, waits.values())), 2))
    assert len(book) == 20 * TRIES, "attempts forgotten"
    # Where no clock that counts has jumped, each waits its two seconds. By one that jumps an
    # hour ahead it is due at once, once.
    counts = servers or journal == "sqlite"
    ahead_of_time = sum(seconds > 0 for _, seconds in jumps) if counts else 0
    most = max(sum(wait < RETRY - 0.1 for wait in lot) for lot in waits.values())
    run.note(most_early_tries_of_one=most)
    assert most <= ahead_of_time, "a retry storm"
    assert _leases(scene.journal) == living, "a jump made somebody take the living for dead"
    run.reckon(scene, documents, uncertain=0)


def _leases(journal: Journal) -> set[int]:
    """Who lives; whoever was buried goes on under another number."""
    return {row["id"] for row in journal.rows("SELECT id FROM leases WHERE kind = 'worker'")}


@fault(
    "clock-jumps-postgresql",
    "the clocks of two workers jump by an hour, forth and back, one by one",
    "no retry storm; nobody taken for dead",
)
def clock_postgresql(run: Run) -> None:
    jump(run, "postgresql", ONE_BY_ONE)


@fault(
    "clock-jumps-sqlite",
    "the clock of the host jumps, which is the journal's; in a zone with DST",
    "no retry storm; nobody taken for dead",
)
def clock_sqlite(run: Run) -> None:
    jump(run, "sqlite", ALL, zone="America/New_York")


@fault(
    "clock-jumps-server",
    "PostgreSQL's own clock jumps by an hour, forth and back, under two workers",
    "no retry storm; nobody taken for dead",
)
def clock_server(run: Run) -> None:
    jump(run, "postgresql", ALL, servers=True)


def _change(season: str, what: str, at: datetime) -> None:
    zone = "America/New_York"
    before = (at - timedelta(seconds=1)).astimezone(ZoneInfo(zone))
    assert before.utcoffset() != at.astimezone(ZoneInfo(zone)).utcoffset()

    @fault(
        f"clock-{season}",
        f"the hour of {what} comes while mail is deferred, in New York, on SQLite",
        "no retry storm; nobody taken for dead",
    )
    def change(run: Run) -> None:
        jump(run, "sqlite", (), zone=zone, change=at)


_change("spring", "02:00 that is 03:00", datetime(2027, 3, 14, 7, tzinfo=UTC))
# The first 01:59:59 ends; the second 01:00 is the same wall clock as an hour before.
_change("autumn", "02:00 that is 01:00 again", datetime(2027, 11, 7, 6, tzinfo=UTC))
