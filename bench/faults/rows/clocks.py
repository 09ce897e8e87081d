"""Clocks that jump, under one worker and not under the others.

Owns the clock that a process is given: ``clock/sitecustomize.py`` adds to ``time.time``
what a file says, which the fault changes while the process runs. The clocks that nobody
sets (``CLOCK_MONOTONIC``, ``CLOCK_BOOTTIME``) are real.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from pathlib import Path

from bench.faults.fault import Run, fault
from tests.acceptance.stage import Stage, mails, until
from tests.acceptance.stage.stage import ROOT

HOUR = 3600.0
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


#: Which worker's clock jumps, and how far it is ahead then (seconds).
ONE_BY_ONE = (
    (0, HOUR), (0, -HOUR), (1, HOUR), (1, 0.0), (0, HOUR), (1, HOUR), (0, 0.0), (1, 0.0),
)  # fmt: skip
#: The clock of the one host. What is deferred while it is an hour ahead waits until it is
#: that late again, so that it ends ahead.
ALL = ((0, HOUR), (0, 0.0), (0, -HOUR), (0, 0.0), (0, HOUR))


def jump(run: Run, journal: str, jumps: Sequence[tuple[int, float]], zone: str = "UTC") -> None:
    """Deferred mail waits two seconds; meanwhile the clocks jump."""
    many = run.many(1000, 100)
    plans = {"soft": ["451 4.7.1 Greylisted", "451 4.7.1 Greylisted", "250"], "n": ["slow 0.02"]}
    scene = run.stage("valkey", journal, settings=SETTINGS, plans=plans)
    scene.environment["TZ"] = zone
    clocks = [Clock(scene.directory, "a"), Clock(scene.directory, "b")]
    if journal == "sqlite":
        clocks[1] = clocks[0]
    scene.begin("intake", env=clocks[0].env)
    for n, clock in enumerate(clocks):
        options = ("--concurrency", "1", "--name", f"clock{n}")
        scene.begin("worker", *options, env=clock.env)
    scene.wait_for_workers(2)
    documents = [*mails(many), *mails(20, to="soft")]
    run.random.shuffle(documents)
    scene.publish(documents)
    until(lambda: len(scene.relay.taken()) >= many // 10, 60, scene.logs)
    for which, seconds in jumps:
        run.strike()
        clocks[which].set(seconds)
        run.lift()
        time.sleep(0.7)
    _finish(scene, many + 20)
    run.recovered(scene)
    tries = len([c for c in scene.relay.book() if c.recipient.startswith("soft")])
    leases = scene.journal.one("SELECT count(*) FROM leases WHERE kind = 'worker'")
    run.note(jumps=len(jumps), attempts_of_20_deferred=tries, workers_at_the_end=leases)
    assert tries == 60, "a retry storm, or attempts forgotten"
    assert leases == 2, "a jump made somebody take the living for dead"
    run.reckon(scene, documents, uncertain=0)


def _finish(scene: Stage, count: int) -> None:
    scene.wait_finished(count, 90)


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
    jump(run, "sqlite", ALL, "America/New_York")
