"""When intake rings: for a few while they are written, and after it what that may have missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest

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
    """Gives one batch."""

    def __init__(self, number: int) -> None:
        self.batch = [delivery(n) for n in range(number)]
        self.acknowledged = asyncio.Event()

    async def open(self) -> None: ...

    async def receive(self, most: int, wait: float) -> Sequence[Delivery]:
        if not self.batch:
            await asyncio.sleep(0.01)
        given, self.batch = self.batch, []
        return given

    async def done(self, deliveries: Sequence[Delivery]) -> bool | None:
        if deliveries:
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


async def rings(number: int, writer: Writer) -> list[str]:
    door, stop = Door(number), asyncio.Event()
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
    before, after = writer.told[: writer.told.index("written")], writer.told
    return [*before, "written", *sorted(after[len(before) + 1 :])]


async def test_the_ring_for_a_few_is_on_its_way_while_they_are_written() -> None:
    assert await rings(1, Writer([], 0.0)) == ["high", "written", "bulk"]


async def test_one_that_was_too_far_ahead_is_given_again() -> None:
    told = await rings(1, Writer([], 2 * RING_AHEAD))
    assert told == ["high", "written", "bulk", "high"]


@pytest.mark.parametrize("number", [5, 100])
async def test_for_many_it_comes_after_them(number: int) -> None:
    assert await rings(number, Writer([], 0.0)) == ["written", "bulk", "high"]


async def test_a_journal_that_is_away_is_not_rung_for_again_and_again() -> None:
    told = await rings(1, Writer([], 0.0, away=3))
    assert told == ["high", "written", "bulk", "high"]
