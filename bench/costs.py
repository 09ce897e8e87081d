"""What a message costs step by step, in one process, and what is left of the whole.

Owns the clocks around the steps of ``bench.steps``, and the two that it does not walk:
the conversation with a relay, and the outbox. Each step's time is without that of the
steps inside it. What the running processes cost beyond the sum is a line of its own: the
doors, rings, Celery, log lines, the event loop and the switches between processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import steps
from bench.scale import _published
from bench.sinks import LoadSink
from bench.workload import SENDER, message
from mailgate.config.relays import Relay
from mailgate.journal.arrivals import Arrivals
from mailgate.journal.queue import Queue
from mailgate.journal.settling import Settling
from mailgate.model.message import Envelope
from mailgate.render import mime
from mailgate.smtp.pool import Pool

#: Steps in the order in which a message meets them.
STEPS = ("intake", "journal", "look, limits", "claim", "render", "MIME", "SMTP", "settle", "events")
REST = "remainder"
CONNECTIONS = 4


def by_step(messages: int) -> dict[str, float]:
    """µs of processor time a message, by step; SQLite."""
    with tempfile.TemporaryDirectory(prefix="mgb-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        url = f"sqlite:///{directory}/journal.db"
        asyncio.run(steps.walk(f"sqlite:///{directory}/warm.db", 300, 100, 50))
        watch = _Watch()
        with watch:
            spent = asyncio.run(steps.walk(url, messages, 500, 50))
        found = {
            "intake": spent["intake"] - watch.spent["journal"],
            "journal": watch.spent["journal"],
            "look, limits": spent["turn"] - watch.spent["claim"] - watch.spent["settle"],
            "claim": watch.spent["claim"],
            "render": spent["render"] - watch.spent["MIME"],
            "MIME": watch.spent["MIME"],
            "SMTP": _smtp(directory, messages),
            "settle": watch.spent["settle"] + spent["outcome"],
            "events": _published(url),
        }
    return {step: found[step] / messages * 1e6 for step in STEPS}


def with_rest(costs: dict[str, float], whole: float) -> dict[str, float]:
    """The steps, and what running processes cost beyond them (µs a message)."""
    return {**costs, REST: whole - sum(costs.values())}


def tell(costs: dict[str, float], whole: float) -> None:
    print("\nµs of processor time a message, by step (SQLite):")
    for step, cost in with_rest(costs, whole).items():
        print(f"  {step:14}{cost:7.0f}")
    print(f"  {'all processes':14}{whole:7.0f}")


class _Watch:
    """Clocks around what others call."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._inside: list[float] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        for owner, name, step in (
            (Queue, "turn", "claim"),
            (Settling, "write", "settle"),
            (mime, "build", "MIME"),
        ):
            self._stack.enter_context(self._clocked(owner, name, step))
        self._stack.enter_context(self._stored())

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _clocked(self, owner: Any, name: str, step: str) -> Iterator[None]:
        original: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            self._inside.append(0.0)
            try:
                return original(*args, **kwargs)
            finally:
                took = time.process_time() - begun
                self.spent[step] += took - self._inside.pop()
                if self._inside:
                    self._inside[-1] += took

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, original)

    @contextlib.contextmanager
    def _stored(self) -> Iterator[None]:
        """The same around what is awaited: nothing else runs meanwhile."""
        original = Arrivals.store

        async def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            try:
                return await original(*args, **kwargs)
            finally:
                self.spent["journal"] += time.process_time() - begun

        Arrivals.store = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            Arrivals.store = original  # type: ignore[method-assign]


class _Silent:
    def dot(self) -> None: ...
    def accepted(self) -> None: ...
    def refused(self) -> None: ...


def _smtp(directory: Path, messages: int) -> float:
    """Processor time of so many conversations with a sink, without what it takes itself."""
    sink = LoadSink(directory / "sink")
    try:
        return asyncio.run(_sent(sink.port, messages))
    finally:
        sink.stop()


async def _sent(port: int, messages: int) -> float:
    relay = Relay(host="127.0.0.1", port=port, security="none", max_connections=CONNECTIONS)
    pool = Pool({"sink": relay}, {})
    content = b"Subject: x\r\n\r\n" + b"A line of a mail, as long as others are in it.\r\n" * 220
    left = iter(range(messages))

    async def one() -> None:
        for number in left:
            said = Envelope(SENDER, message(number, "s")["to"][0], content, True)
            await pool.deliver("sink", said, _Silent())

    begun = time.process_time()
    # More than there are connections, as in a worker: some ride behind others.
    await asyncio.gather(*(one() for _ in range(8 * CONNECTIONS)))
    spent = time.process_time() - begun
    await pool.close(1.0)
    return spent
