"""What each long-running process shows of itself, where ``[metrics]`` says so.

Owns which checks make a process live and ready, and the server's place in its life.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from mailgate.cli.setting import fail

if TYPE_CHECKING:
    from mailgate.config.shape import Config
    from mailgate.http.health import Check
    from mailgate.http.server import Server
    from mailgate.metrics.tally import Tally, Totals

#: A loop that has not turned, or a worker without a child that reports, for so long (seconds).
_DEAD = 60.0
#: Broker and journal are asked again after this (seconds).
_AGAIN = 5.0


class Pulse:
    """When something was last seen alive; at first that is now."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        self._at = time.monotonic()

    async def keep(self) -> None:
        """Beat with each turn of the loop that this runs on, until cancelled."""
        import asyncio

        while True:
            self.beat()
            await asyncio.sleep(1)

    def check(self) -> str:
        silent = time.monotonic() - self._at
        return f"silent for {silent:.0f} s" if silent > _DEAD else ""


@contextlib.contextmanager
def intake(
    config: Config, tally: Tally, pulse: Pulse, opened: Callable[[], bool]
) -> Iterator[None]:
    """While intake runs; ``opened`` tells that its doors consume."""
    if config.metrics.intake is None:
        yield
        return
    from mailgate.http.health import Remembered
    from mailgate.http.look import JournalLook
    from mailgate.metrics.tally import together
    from mailgate.worker.probe import broker_answers

    url = config.intake.url or config.broker.url or ""
    with contextlib.closing(JournalLook(config)) as look:
        server = _server(
            config,
            "intake",
            lambda: together([tally.snapshot()]),
            live={"loop": pulse.check},
            ready={
                "consuming": lambda: "" if opened() else "not yet",
                "journal": look.check,
                "broker": Remembered(lambda: broker_answers(url), _AGAIN),
            },
        )
        server.start()
        with contextlib.ExitStack() as end:
            end.callback(server.stop)
            yield


@contextlib.contextmanager
def worker(config: Config) -> Iterator[None]:
    """While a worker runs: its main process serves, once its children are started."""
    if config.metrics.worker is None:
        yield
        return
    from mailgate.metrics import families
    from mailgate.metrics.board import Board
    from mailgate.worker import celery_app

    try:
        board = Board.make(config.state_dir.absolute(), "worker")
    except OSError as error:
        fail(f"state_dir cannot be written: {error}")
    pulse = Pulse()

    def children() -> str:
        if board.totals().number(families.WORKER_PROCESSES):
            pulse.beat()
        return pulse.check()

    def leases() -> str:
        valid = board.totals().number(families.LEASES_VALID)
        return "" if valid else "no process has a valid lease in the journal"

    server = _server(
        config, "worker", board.totals, live={"children": children}, ready={"lease": leases}
    )
    celery_app.report_to(board)
    celery_app.when_ready(server.start)
    try:
        yield
    finally:
        server.stop()
        board.close()


@contextlib.contextmanager
def beat(config: Config) -> Iterator[None]:
    """While beat runs."""
    if config.metrics.beat is None:
        yield
        return
    from mailgate.http.look import JournalLook

    with contextlib.closing(JournalLook(config)) as look:
        server = _server(config, "beat", look.totals, live={}, ready={"journal": look.check})
        server.start()
        try:
            yield
        finally:
            server.stop()


def _server(
    config: Config,
    kind: Literal["intake", "worker", "beat"],
    totals: Callable[[], Totals],
    live: Mapping[str, Check],
    ready: Mapping[str, Check],
) -> Server:
    from mailgate.http.server import Server

    address = getattr(config.metrics, kind)
    try:
        return Server(address, kind, totals, live, ready)
    except OSError as error:
        fail(f"metrics.{kind}: cannot listen on {address}: {error.strerror}", 2)
