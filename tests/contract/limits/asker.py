"""A worker process that asks for permits and uses them: one of several in a test.

``python -m tests.contract.limits.asker KIND URL BEGIN SECONDS LIMITS`` prints, as JSON,
when it used each set of limits (``time.monotonic``, one clock for all processes of a
machine), when its permits opened, and how many of them it was too late for.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from mailgate.config.terms import parse_rate
from mailgate.limits.rules import Ask, Grant
from tests.contract.limits.stores import opened

HORIZON = 0.4
BATCH = 40


async def work(kind: str, url: str, begin: float, seconds: float, said: str) -> None:
    sets = [
        Ask(tuple((key, parse_rate(rate)) for key, rate in limits)) for limits in json.loads(said)
    ]
    uses: dict[str, list[float]] = {}
    opens: list[float] = []
    late = 0
    chance = random.Random()

    async def use(ask: Ask, grant: Grant) -> None:
        nonlocal late
        await asyncio.sleep(max(0.0, grant.opens - time.monotonic()))
        now = time.monotonic()
        if now > grant.closes:
            late += 1
            return
        for key, _ in ask.keys:
            uses.setdefault(key, []).append(now)

    async with opened(kind, url) as limiter:
        await limiter.peek(sets[0].keys)  # connections and clocks
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        async with asyncio.TaskGroup() as conversations:
            while time.monotonic() < begin + seconds:
                asks = chance.choices(sets, k=BATCH)
                answers = await limiter.reserve(asks, HORIZON)
                waits = []
                for ask, answer in zip(asks, answers, strict=True):
                    if isinstance(answer, Grant):
                        opens.append(answer.opens)
                        conversations.create_task(use(ask, answer))
                    else:
                        waits.append(answer.wait)
                await asyncio.sleep(min(waits, default=0.0))
    json.dump({"uses": uses, "opens": opens, "late": late}, sys.stdout)


if __name__ == "__main__":
    _, kind_, url_, begin_, seconds_, limits_ = sys.argv
    asyncio.run(work(kind_, url_, float(begin_), float(seconds_), limits_))
