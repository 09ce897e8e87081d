"""The stores of permits that the suite runs over, each with a way to open it anew.

A store is named by its kind and its URL, so that another process can open it too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mailgate.config.terms import Rate
from mailgate.journal.database import Database
from mailgate.journal.permits import JournalLimiter
from mailgate.limits.clock import StoreClock, answers, waits
from mailgate.limits.redis import RedisLimiter
from mailgate.limits.rules import Ask, Grant, Limiter, Refusal, State, admit, reach


class MemoryLimiter:
    """The algorithm by itself: what the stores are measured by."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._clock = StoreClock()

    async def reserve(self, asks: Sequence[Ask], horizon: float) -> list[Grant | Refusal]:
        now = self._now()
        _, cut = reach(0, int(horizon * 1e6))
        limited = [ask for ask in asks if ask.keys]
        verdicts, _ = admit(self._states, limited, now=now, horizon=cut)
        return answers(asks, verdicts, self._clock, now, cut)

    async def peek(self, keys: Sequence[tuple[str, Rate]]) -> dict[str, float]:
        now = self._now()
        verdicts, _ = admit(self._states, [Ask((k,)) for k in keys], now=now, horizon=-1)
        return waits(keys, verdicts, now)

    async def close(self) -> None:
        return None

    def _now(self) -> int:
        ours = time.monotonic()
        now = time.time_ns() // 1000
        self._clock.learn(now, ours, ours)
        return now


async def _nothing_given() -> bool:
    return True


@asynccontextmanager
async def opened(kind: str, url: str) -> AsyncIterator[Limiter]:
    if kind == "memory":
        yield MemoryLimiter()
    elif kind == "valkey":
        store = RedisLimiter(url, nothing_given=_nothing_given)
        try:
            yield store
        finally:
            await store.close()
    else:
        database = Database(url)
        try:
            yield JournalLimiter(database)
        finally:
            database.close()
