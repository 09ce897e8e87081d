"""Doors that close themselves, and a consumer process to kill."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mailgate.intake.door import Delivery, Door

#: Seconds after which the tests' doors take over what a dead consumer held.
IDLE = 1.0

Gather = Callable[..., Awaitable[list[Delivery]]]


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Callable[[Any], Awaitable[Any]]]:
    doors: list[Door] = []

    async def open_(door: Door) -> Door:
        doors.append(door)
        await door.open()
        return door

    yield open_
    for door in doors:
        await door.close()


@pytest.fixture
def gather() -> Gather:
    """``gather(door, n)`` receives until there are n deliveries, or fails after ``within``."""

    async def receive(door: Door, count: int, within: float = 15.0) -> list[Delivery]:
        found: list[Delivery] = []
        async with asyncio.timeout(within):
            while len(found) < count:
                found += await door.receive(count - len(found), 0.2)
        return found

    return receive


@pytest.fixture
def hold_and_kill() -> Iterator[Callable[[str, str, int], list[list[str]]]]:
    """Runs a consumer until it holds ``count`` deliveries, kills it with SIGKILL, and gives
    the (identity, body) pairs that it was given."""
    running: list[subprocess.Popen[str]] = []

    def run(url: str, queue: str, count: int) -> list[list[str]]:
        script = Path(__file__).with_name("consumer.py")
        process = subprocess.Popen(
            [sys.executable, str(script), url, queue, str(count), str(IDLE)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
            env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin"},
        )
        running.append(process)
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            if line.strip() == "holding":
                break
            seen.append(line.strip().split(" ", 1))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
        return seen

    yield run
    for process in running:
        process.kill()
        process.wait(10)


async def taken(consumer: Any) -> list[list[int]]:
    """The sizes of all that waits, batch by batch, each acknowledged before the next."""
    sizes = []
    while batch := await consumer.receive(500, 0.3):
        sizes.append([len(d.body) for d in batch])
        assert await consumer.done(batch)
    return sizes
