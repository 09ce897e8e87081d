"""How long a door rests between two batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import cast

import pytest

from mailgate.config.shape import Intake
from mailgate.intake.accept import Accept
from mailgate.intake.door import Delivery
from mailgate.intake.service import rest, serve
from mailgate.journal.arrivals import Stored


def delivery(number: int, size: int = 2, *, again: bool = False) -> Delivery:
    return Delivery(
        body=b"{" * size,
        source="test",
        identity=str(number),
        redelivered=again,
        refusal=None,
        handle=0,
    )


@pytest.mark.parametrize(
    ("number", "size", "seconds", "rests"),
    [
        (1, 1000, 0.01, 0.0),
        (2, 1000, 0.01, 0.03),
        (99, 1000, 0.02, 0.06),
        (99, 1000, 5.0, 0.1),
        (100, 1000, 0.02, 0.0),
        (3, 2**18, 0.02, 0.0),
    ],
    ids=["alone", "two", "many", "at most", "enough of them", "large ones"],
)
def test_a_door_rests_where_more_will_come_together(
    number: int, size: int, seconds: float, rests: float
) -> None:
    batch = [delivery(n, size) for n in range(number)]
    assert rest(batch, 500, seconds) == pytest.approx(rests)


def test_a_full_batch_is_followed_at_once_however_small_it_may_be() -> None:
    assert rest([delivery(n) for n in range(10)], 10, 0.02) == 0.0
    assert rest([delivery(n) for n in range(9)], 10, 0.02) > 0.0


def test_what_others_left_behind_comes_without_a_rest() -> None:
    """A stream gives it by fours."""
    assert rest([delivery(n, again=n == 3) for n in range(4)], 500, 0.02) == 0.0


def test_the_least_that_fills_a_door_by_bytes_is_not_rested_after() -> None:
    """An AMQP door gives half of ``intake.batch_bytes`` at once, a Redis door all of it."""
    [least] = [m.ge for m in Intake.model_fields["batch_bytes"].metadata if hasattr(m, "ge")]
    assert rest([delivery(n, least // 4) for n in range(2)], 500, 0.02) == 0.0


class Pond:
    """A door at which one comes each millisecond."""

    def __init__(self, number: int) -> None:
        self.begun = time.monotonic()
        self.left = number
        self.taken = 0

    async def open(self) -> None:
        pass

    async def receive(self, most: int, wait: float) -> Sequence[Delivery]:
        while True:
            there = min(self.left, int((time.monotonic() - self.begun) * 1000)) - self.taken
            if there or self.taken == self.left:
                break
            await asyncio.sleep(0.001)
        if not there:
            await asyncio.sleep(0.05)
        self.taken += there
        return [delivery(n) for n in range(there)]

    async def done(self, deliveries: Sequence[Delivery]) -> bool | None:
        return True

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        pass

    async def close(self) -> None:
        pass


class Slow:
    """Writes for five milliseconds, however many there are."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    async def batch(
        self, deliveries: Sequence[Delivery], forget: Sequence[int] = (), coming: object = None
    ) -> Stored:
        await asyncio.sleep(0.005)
        self.batches.append(len(deliveries))
        return Stored()


async def test_what_comes_during_a_rest_is_one_batch_and_a_stop_ends_it() -> None:
    door, writer, stop = Pond(400), Slow(), asyncio.Event()
    serving = asyncio.create_task(
        serve([door], lambda: cast(Accept, writer), lambda _: None, stop, batch=500)
    )
    while door.taken < 400:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(serving, 2)
    assert sum(writer.batches) == 400
    # Without a rest there would be one each five milliseconds: eighty.
    assert len(writer.batches) < 40, writer.batches
