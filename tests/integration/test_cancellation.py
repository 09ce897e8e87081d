"""What redis-py does with a cancellation, over a real server, and that nobody stays for it."""

from __future__ import annotations

import asyncio
import sys

import pytest

from mailgate.cancellation import heed
from mailgate.intake.redis import clients
from tests.servers import Valkey


async def _stays(url: str, steps: int, *, heeding: bool) -> bool:
    """Whether a task that talks to a server for ever outlives a cancellation after some steps."""
    [client] = clients(url)
    await client.ping()
    over = False

    async def talk() -> None:
        while not over:
            if heeding:
                heed()
            await client.ping()

    task = asyncio.create_task(talk())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    _, waiting = await asyncio.wait((task,), timeout=0.3)
    over = True
    await asyncio.wait((task,))
    assert waiting or task.cancelled()
    await client.aclose()
    return bool(waiting)


@pytest.mark.parametrize("heeding", [False, True])
async def test_a_task_that_speaks_to_redis_ends_when_it_is_told(
    valkey_server: Valkey, heeding: bool
) -> None:
    url = valkey_server.broker_url
    stayed = [await _stays(url, steps, heeding=heeding) for steps in range(12)]
    if heeding:
        assert not any(stayed)
    elif sys.version_info < (3, 12):
        # Should this be no longer so, there is nothing to heed.
        assert any(stayed)
