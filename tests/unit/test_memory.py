"""What nobody can reach any more is given back, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailgate import memory
from tests.unit.cycles import collected_only_when_told, old_cycle


@pytest.fixture(autouse=True)
def _only_when_told() -> Iterator[None]:
    with collected_only_when_told():
        yield


def _held() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_cycle_that_grew_old_before_it_was_lost_is_collected() -> None:
    lost, kept = old_cycle(), [object()]
    gc.collect(0)
    assert lost() is not None
    memory.let_go()
    assert lost() is None
    assert kept


def test_what_was_freed_below_something_in_use_goes_back_to_the_system() -> None:
    if os.confstr("CS_GNU_LIBC_VERSION") is None:
        pytest.skip("not glibc")
    many = [bytes(2000) for _ in range(20_000)]
    last = many.pop()
    del many
    before = _held()
    memory.let_go()
    assert before - _held() > 20 * 2**20
    assert len(last) == 2000


async def test_it_is_done_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY", 0.0)
    task = asyncio.create_task(memory.keep_lean())
    for _ in range(2):
        lost: weakref.ref[object] = old_cycle()
        async with asyncio.timeout(5):
            while lost() is not None:
                await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
