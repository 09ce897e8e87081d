"""Room for the bytes of attachments: who gets how much, and who waits."""

from __future__ import annotations

import asyncio

import pytest

from mailgate.delivery.room import Hold, Room


async def _waits(room: Room, size: int, *, urgent: bool = False) -> asyncio.Task[None]:
    task = asyncio.create_task(room.take(size, urgent=urgent))
    await asyncio.sleep(0)
    return task


async def test_who_came_first_is_first_also_when_a_smaller_one_would_fit() -> None:
    room = Room(10)
    await room.take(8)
    large, small = await _waits(room, 9), await _waits(room, 1)
    await asyncio.sleep(0)
    assert not large.done()
    assert not small.done()
    room.give(8)
    await asyncio.gather(large, small)
    assert room.held == 10


async def test_one_that_is_larger_than_the_room_has_it_alone() -> None:
    room = Room(10)
    await room.take(25)
    other = await _waits(room, 1)
    assert not other.done()
    room.give(25)
    await other
    assert room.held == 1


async def test_urgent_ones_go_before_those_who_wait() -> None:
    room = Room(10)
    await room.take(10)
    normal, urgent = await _waits(room, 10), await _waits(room, 10, urgent=True)
    room.give(10)
    await urgent
    assert not normal.done()
    room.give(10)
    await normal


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    room = Room(10)
    await room.take(10)
    waiting, behind = await _waits(room, 10), await _waits(room, 5)
    waiting.cancel()
    await asyncio.sleep(0)
    room.give(10)
    await behind
    assert room.held == 5
    # Served and cancelled in the same moment.
    served = await _waits(room, 6)
    room.give(5)
    served.cancel()
    await asyncio.gather(served, return_exceptions=True)
    assert room.held == 0


async def test_a_hold_is_given_back_once() -> None:
    room = Room(10)
    hold = Hold(room)
    await hold.take(7, urgent=False)
    hold.release()
    hold.release()
    assert room.held == 0


@pytest.mark.parametrize("given", [0, 5])
async def test_several_who_are_cancelled_together_are_served_nothing(given: int) -> None:
    """What is given, or the first one's end, makes room for the second, which has not run yet."""
    room = Room(10)
    await room.take(5)
    both = [await _waits(room, size) for size in (9, 1)]
    for one in both:
        one.cancel()
    if given:
        room.give(given)
    ends = await asyncio.gather(*both, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError, asyncio.CancelledError]
    assert room.held == 5 - given
    await asyncio.wait_for(room.take(5 + given), 1)
