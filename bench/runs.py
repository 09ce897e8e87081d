"""One run: start a side, warm it, load its queue, let it go, and read the meters."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine
from bench.sides import Make, Side
from bench.sinks import ClockSink, LoadSink
from bench.workload import bodies

WARM = 300
#: Longest time for all of a run's messages (seconds).
PATIENCE = 240.0


@dataclass(frozen=True, slots=True)
class Load:
    """A queue emptied. CPU is microseconds a message."""

    side: str
    messages: int
    seconds: float
    cpu: dict[str, float] = field(default_factory=dict)
    servers_cpu: dict[str, float] = field(default_factory=dict)
    pss: float = 0.0

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    @property
    def work(self) -> float:
        """CPU a message of everything that has a part in it."""
        return self.cpu_total + sum(self.servers_cpu.values())

    @property
    def cpu_total(self) -> float:
        return sum(self.cpu.values())


@dataclass(frozen=True, slots=True)
class Idle:
    """Queue to acceptance, one message at a time; milliseconds, sorted."""

    side: str
    times: tuple[float, ...]

    def at(self, share: float) -> float:
        return self.times[min(len(self.times) - 1, int(share * len(self.times)))]


@contextlib.contextmanager
def _running(make: Make, directory: Path, port: int) -> Iterator[Side]:
    side = make(directory, port)
    try:
        side.start()
        yield side
    finally:
        side.stop()


def load(
    make: Make,
    directory: Path,
    messages: int,
    *,
    watch: Callable[[Side], contextlib.AbstractContextManager[object]] | None = None,
    sink: Callable[[Path], LoadSink] = LoadSink,
    warm: int = WARM,
) -> Load:
    """``watch`` looks on while the queue is emptied (a profiler)."""
    run = directory.name
    relay = sink(directory.with_name(f"{run}-sink"))
    try:
        with _running(make, directory, relay.port) as side:
            for body in bodies(warm, f"{run}w"):
                side.publish(body)
            relay.wait(warm, 60)
            side.check(warm)
            side.load(bodies(messages, run))
            time.sleep(1.0)
            with watch(side) if watch else contextlib.nullcontext():
                spent = {"sink": -machine.cpu(relay.daemon._process.pid)}
                before = side.servers() | side.parts
                for name, part in before.items():
                    spent[name] = -machine.cpu(part._process.pid)
                begun = side.go()
                for name in side.parts.keys() - before.keys():
                    # What starting cost it is not a message's.
                    spent[name] = -machine.cpu(side.parts[name]._process.pid)
                ended = relay.wait(warm + messages, PATIENCE)
                memory = sum(machine.pss(p._process.pid) for p in side.parts.values())
                side.check(warm + messages)
                ours = {
                    name: (machine.cpu(part._process.pid) + spent[name]) / messages * 1e6
                    for name, part in side.parts.items()
                }
                theirs = {
                    name: (machine.cpu(part._process.pid) + spent[name]) / messages * 1e6
                    for name, part in (side.servers() | {"sink": relay.daemon}).items()
                }
            time.sleep(0.3)
            if relay.count() != warm + messages:
                raise AssertionError(f"{relay.count() - warm} copies of {messages} messages")
            return Load(side.name, messages, ended - begun, ours, theirs, memory)
    finally:
        relay.stop()


def idle(make: Make, directory: Path, messages: int) -> Idle:
    """Latency of single messages to a side that has nothing else to do."""
    return asyncio.run(_idle(make, directory, messages))


async def _idle(make: Make, directory: Path, messages: int) -> Idle:
    sink = ClockSink()
    await sink.start()
    run = directory.name
    chance = random.Random(7)
    side = make(directory, sink.port)
    try:
        await asyncio.to_thread(side.start)
        times = []
        for number, body in enumerate(bodies(messages + 20, run)):
            begun = time.monotonic()
            side.publish(body)
            ended = await sink.wait(number, 30)
            if number >= 20:
                times.append((ended - begun) * 1000)
            await asyncio.sleep(0.02 + 0.04 * chance.random())
        return Idle(side.name, tuple(sorted(times)))
    finally:
        await asyncio.to_thread(side.stop)
        await sink.stop()
