"""What every store of permits does alike."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

from mailgate.config.terms import Rate
from mailgate.limits.rules import (
    ON_THE_WAY,
    Ask,
    Grant,
    Limiter,
    Refusal,
    interval,
    pace,
    validity,
)
from tests.contract.limits.stores import opened
from tests.unit.limits.promise import fullest

SLOW = ("relay:slow", Rate(2, 60.0))
FAST = ("global", Rate(100, 1.0))
#: A permit may be used until it closes: what opens in so long can all be used in one second.
WIDEST = 1.0 + validity(FAST[1]) - ON_THE_WAY


def split(answers: list[Grant | Refusal]) -> tuple[list[Grant], list[Refusal]]:
    return (
        [a for a in answers if isinstance(a, Grant)],
        [a for a in answers if isinstance(a, Refusal)],
    )


async def test_a_batch_is_given_moments_at_the_pace(limiter: Limiter) -> None:
    await limiter.reserve([Ask((("warm", FAST[1]),))], 0.5)  # connections, the clock
    before = time.monotonic()
    grants, refusals = split(await limiter.reserve([Ask((FAST,))] * 80, 0.5))
    assert 45 <= len(grants) <= 53
    assert len(grants) + len(refusals) == 80
    opens = [grant.opens for grant in grants]
    assert opens == sorted(opens)
    assert opens[0] >= before
    gaps = [b - a for a, b in pairwise(opens[1:])]
    assert all(abs(gap - interval(FAST[1]) / 1e6) < 1e-5 for gap in gaps)
    assert all(0.005 <= grant.closes - grant.opens <= WIDEST - 1.0 + 1e-6 for grant in grants)


async def test_all_limits_admit_together_or_none_is_charged(limiter: Limiter) -> None:
    grants, refusals = split(await limiter.reserve([Ask((FAST, SLOW))] * 60, 0.4))
    assert len(grants) == 2
    assert {refusal.key for refusal in refusals} == {"relay:slow"}
    assert all(59 <= refusal.wait <= 60.3 for refusal in refusals)
    # The 58 refused took nothing from the shared limit.
    grants, _ = split(await limiter.reserve([Ask((FAST,))] * 60, 0.4))
    assert len(grants) >= 36


async def test_an_ask_without_limits_is_free_and_keeps_its_place(limiter: Limiter) -> None:
    first, second, third = await limiter.reserve([Ask((SLOW,)), Ask(()), Ask((SLOW,))], 0.4)
    assert isinstance(first, Grant)
    assert second == Grant(float("-inf"), float("inf"))
    assert isinstance(third, Grant)
    assert await limiter.reserve([Ask(())], 0.4) == [second]
    assert await limiter.reserve([], 0.4) == []


async def test_refused_askers_come_back_in_time_to_use_it_all(limiter: Limiter) -> None:
    rate, horizon, opens = Rate(40, 1.0), 0.2, []
    await limiter.reserve([Ask((("warm", rate),))], horizon)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        grants, refusals = split(await limiter.reserve([Ask((("k", rate),))] * 50, horizon))
        opens += [grant.opens for grant in grants]
        await asyncio.sleep(min(refusal.wait for refusal in refusals))
    assert fullest(opens, WIDEST) <= 40
    first_second = [o for o in opens if o < opens[0] + pace(rate).window / 1e6 - 0.002]
    assert len(first_second) == 40
    assert max(b - a for a, b in pairwise(opens)) < 0.06


async def test_peek_tells_the_wait_and_charges_nothing(limiter: Limiter) -> None:
    for _ in range(3):
        assert await limiter.peek([SLOW, FAST]) == {"relay:slow": 0.0, "global": 0.0}
    grants, _ = split(await limiter.reserve([Ask((SLOW,))] * 3, 0.4))
    assert len(grants) == 2
    waits = await limiter.peek([SLOW, FAST])
    assert 59 < waits["relay:slow"] <= 60.3
    assert waits["global"] == 0.0
    assert await limiter.peek([]) == {}


async def test_a_permit_is_in_hand_before_it_closes(limiter: Limiter) -> None:
    """However long the store takes: moments are put ahead by what its replies take."""
    rate, in_time = Rate(1000, 1.0), 0
    await limiter.reserve([Ask((("k", rate),))], 0.4)
    for _ in range(20):
        [grant] = await limiter.reserve([Ask((("k", rate),))], 0.4)
        assert isinstance(grant, Grant)
        in_time += time.monotonic() <= grant.closes
        await asyncio.sleep(0.01)
    assert in_time >= 17


async def test_what_was_given_is_known_to_the_next_process(shared_store: tuple[str, str]) -> None:
    async with opened(*shared_store) as first:
        grants, _ = split(await first.reserve([Ask((SLOW,))] * 5, 0.4))
        assert len(grants) == 2
    async with opened(*shared_store) as second:
        [answer] = await second.reserve([Ask((SLOW,))], 0.4)
        assert isinstance(answer, Refusal)
        assert answer.wait > 58


async def test_tasks_of_one_process_share_a_limiter(limiter: Limiter) -> None:
    rate = Rate(50, 1.0)
    answers = await asyncio.gather(
        *(limiter.reserve([Ask((("k", rate),))] * 10, 0.9) for _ in range(10))
    )
    opens = sorted(a.opens for batch in answers for a in batch if isinstance(a, Grant))
    assert 40 <= len(opens) <= 50
    assert fullest(opens, WIDEST) <= 50
