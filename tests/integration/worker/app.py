"""A worker whose gateway keeps a book: what the real one does is not the worker's matter.

``python -m celery -A tests.integration.worker.app worker`` or ``python -m
tests.integration.worker.app worker|beat|flower …`` with ``WORKER_TEST_DIRECTORY``.
There tests write ``due/LANE`` (something is due), ``hold`` (a deliver works for so many
seconds), ``break`` (it raises), ``block`` (it blocks the loop), ``die`` (the loop dies)
and ``away`` (the journal is away); in ``book`` the gateway writes a line an act.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from mailgate import memory
from mailgate.config.shape import Config
from mailgate.model.state import Lane
from mailgate.worker import celery_app, command
from mailgate.worker.celery_app import app
from tests.unit.cycles import old_cycle

__all__ = ["app"]

DIRECTORY = Path(os.environ["WORKER_TEST_DIRECTORY"])
ADDRESS = "ann.private@example.com"


class BookKeeper:
    """A gateway that delivers nothing and writes down what was asked of it."""

    def __init__(self, config: Config, ring: Callable[[Lane], None]) -> None:
        self.ring = ring

    async def start(self) -> None:
        if self._said("away"):
            raise ConnectionError("no journal")
        self._write("start")

    async def deliver(self, lane: Lane, deadline: float) -> dict[str, int]:
        self._write("deliver", lane=lane.value)
        if self._said("break"):
            raise ValueError(f"550 no such user {ADDRESS}")
        if self._said("die"):
            asyncio.get_running_loop().call_soon(sys.exit, 3)
        if self._said("block"):
            time.sleep(60)
        hold = self._said("hold")
        counts: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            (DIRECTORY / "due" / lane.value).unlink()
            counts = {"sent": 48, "deferred": 2}
        try:
            await asyncio.sleep(min(float(hold or 0), deadline - time.monotonic()))
        except asyncio.CancelledError:
            self._write("cancelled", lane=lane.value)
            raise
        self._write("delivered", lane=lane.value)
        return counts

    async def due(self) -> frozenset[Lane]:
        if self._said("away"):
            raise ConnectionError(f"no journal for {ADDRESS}")
        return frozenset(lane for lane in Lane if (DIRECTORY / "due" / lane.value).exists())

    async def until_due(self, most: float) -> float:
        return most

    async def stop(self, grace: float) -> None:
        self._write("stopping", grace=grace)
        await asyncio.sleep(float(self._said("drain") or 0))
        self._write("stopped")

    def _said(self, word: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (DIRECTORY / word).read_text() or word
        return ""

    def _write(self, event: str, **more: object) -> None:
        line = {"event": event, "pid": os.getpid(), "at": time.time(), **more}
        with (DIRECTORY / "book").open("a") as book:
            book.write(json.dumps(line) + "\n")


celery_app.install(BookKeeper)
memory.EVERY = float(os.environ.get("WORKER_TEST_EVERY", memory.EVERY))
app.add_defaults(lambda: json.loads(os.environ.get("WORKER_TEST_SETTINGS", "{}")))


def _lose_something() -> None:
    """A cycle that nobody can reach; in ``lost`` it is written down who collects it."""

    def gone() -> None:
        with (DIRECTORY / "lost").open("a") as out:
            out.write(f"{os.getpid()}\n")

    cycle = old_cycle()()
    assert cycle is not None
    weakref.finalize(cycle, gone).atexit = False


def main() -> int:
    program, *rest = sys.argv[1:]
    options = json.loads(rest[0]) if rest else {}
    config = celery_app.config()
    if program == "worker":
        celery_app.when_ready(_lose_something)
        return command.worker(config, **options)
    if program == "beat":
        return command.beat(config, **options)
    return command.flower(config, **options)


if __name__ == "__main__":
    sys.exit(main())
