"""When intake rings: for a few while they are written, and after it what that may have missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from mailgate.intake import service
from mailgate.intake.accept import Accept
from mailgate.intake.door import Delivery
from mailgate.intake.service import serve
from mailgate.journal.arrivals import Stored
from mailgate.journal.database import JournalAway
from mailgate.model.state import RING_AHEAD, Lane


def delivery(number: int) -> Delivery:
    return Delivery(
        body=b"{}",
        source="amqp",
        identity=str(number),
        redelivered=False,
        refusal=None,
        handle=number,
    )


class Door:
    """Gives batches of ``number``, ``times`` of them."""

    def __init__(self, number: int, times: int = 1) -> None:
        self.batches = [[delivery(n) for n in range(number)] for _ in range(times)]
        self.acknowledged = asyncio.Event()

    async def open(self) -> None: ...

    async def receive(self, most: int, wait: float) -> Sequence[Delivery]:
        if not self.batches:
            await asyncio.sleep(0.01)
            return []
        return self.batches.pop()

    async def done(self, deliveries: Sequence[Delivery]) -> bool | None:
        if deliveries and not self.batches:
            self.acknowledged.set()
        return True

    async def release(self, deliveries: Sequence[Delivery]) -> None: ...

    async def close(self) -> None: ...


class Writer:
    """Knows of mail in one lane beforehand, and afterwards in two."""

    def __init__(self, told: list[str], seconds: float, away: int = 0) -> None:
        self.told, self.seconds, self.away = told, seconds, away

    async def batch(
        self,
        deliveries: Sequence[Delivery],
        forget: Sequence[int] = (),
        coming: Callable[[Lane], None] | None = None,
    ) -> Stored:
        if coming is not None:
            coming(Lane.HIGH)
        if self.away:
            self.away -= 1
            raise JournalAway("away")
        await asyncio.sleep(self.seconds)
        self.told.append("written")
        return Stored(lanes={Lane.HIGH, Lane.BULK})


async def rings(number: int, writer: Writer, times: int = 1) -> list[str]:
    door, stop = Door(number, times), asyncio.Event()
    serving = asyncio.create_task(
        serve(
            [door],
            lambda: cast(Accept, writer),
            lambda lane: writer.told.append(lane.value),
            stop,
            batch=500,
        )
    )
    await asyncio.wait_for(door.acknowledged.wait(), 3)
    stop.set()
    await asyncio.wait_for(serving, 3)
    if times > 1:
        return writer.told
    before, after = writer.told[: writer.told.index("written")], writer.told
    return [*before, "written", *sorted(after[len(before) + 1 :])]


async def test_the_ring_for_a_few_is_on_its_way_while_they_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However long a busy machine takes for it.
    monkeypatch.setattr(service, "RING_AHEAD", 2.0)
    assert await rings(1, Writer([], 0.0)) == ["high", "written", "bulk"]


async def test_one_that_was_too_far_ahead_is_given_again() -> None:
    told = await rings(1, Writer([], 2 * RING_AHEAD))
    assert told == ["high", "written", "bulk", "high"]


async def test_where_writing_is_slow_it_comes_after_the_next() -> None:
    told = await rings(1, Writer([], 2 * RING_AHEAD), times=2)
    assert told[:2] == ["high", "written"]
    assert told.count("written") == 2
    assert told.count("high") == 3
    second = told.index("written", 2)
    assert sorted(told[second + 1 :]) == ["bulk", "high"]


@pytest.mark.parametrize("number", [5, 100])
async def test_for_many_it_comes_after_them(number: int) -> None:
    assert await rings(number, Writer([], 0.0)) == ["written", "bulk", "high"]


async def test_a_journal_that_is_away_is_not_rung_for_again_and_again() -> None:
    told = await rings(1, Writer([], 0.0, away=3))
    assert told == ["high", "written", "bulk", "high"]
