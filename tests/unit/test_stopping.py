"""How a process that was told to stop comes to its end, and what it says when it does not."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from mailgate.cli import processes


async def test_a_cancellation_that_is_lost_is_said_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "_CANCELLED_IN", 0.01)
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    tasks = [asyncio.create_task(deaf()), asyncio.create_task(asyncio.sleep(60))]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await processes._ended(*tasks)
    assert lost == 3
    assert all(task.cancelled() for task in tasks)
    whose = [record.__dict__["what"].rpartition(".")[2] for record in caplog.records]
    assert whose == ["deaf", "deaf"]


_LONG = """
import asyncio, os, signal, sys
from mailgate.cli import processes

processes._LONG_END = float(sys.argv[1])

async def run(stop):
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    await asyncio.sleep(0.5)

processes.until_stopped(run)
"""


@pytest.mark.parametrize(("after", "says"), [("0.1", True), ("30", False)])
def test_an_end_that_takes_long_says_where_it_stands(after: str, says: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LONG, after], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0
    assert ("most recent call first" in done.stderr) is says
