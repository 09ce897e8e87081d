from __future__ import annotations

import random

import pytest

from mailgate.config.terms import Rate
from mailgate.limits.clock import SURE, StoreClock, answers, waits
from mailgate.limits.rules import ON_THE_WAY, Ask, Grant, Refusal, Verdict

#: The store's clock minus ours, in seconds.
APART = 1_800_000_000.0


def theirs(ours: float) -> int:
    return int((ours + APART) * 1e6)


@pytest.mark.parametrize("there_and_back", [(0.0001, 0.0002), (0.001, 0.0), (0.0, 0.003)])
def test_a_permit_opens_never_early_and_closes_within_its_validity(
    there_and_back: tuple[float, float],
) -> None:
    """However slow most replies are, the quickest ways there and back bound the difference."""
    chance, clock = random.Random(1), StoreClock()
    there, back = there_and_back
    for n in range(50):
        before = 100 + n * 0.03
        at = before + there + chance.random() * 0.02 * (n % 3 > 0)
        clock.learn(theirs(at), before, at + back + chance.random() * 0.02 * (n % 2))
    assert clock.sure
    grant = clock.grant(theirs(103.0), 0.015)
    assert 103.0 <= grant.opens <= 103.0 + SURE + 1e-5
    assert grant.opens <= grant.closes <= 103.015 - ON_THE_WAY + 1e-5


def test_one_slow_reply_is_not_sure() -> None:
    clock = StoreClock()
    clock.learn(theirs(1.0), 0.95, 1.05)
    assert not clock.sure


def test_a_clock_that_was_set_is_followed_at_once() -> None:
    clock = StoreClock()
    clock.learn(theirs(1.0), 0.999, 1.001)
    clock.learn(theirs(1.1) + 5_000_000, 1.099, 1.101)
    grant = clock.grant(theirs(1.2) + 5_000_000, 0.015)
    assert grant.opens == pytest.approx(1.2, abs=SURE)


def test_old_looks_are_forgotten_since_clocks_drift() -> None:
    clock = StoreClock()
    clock.learn(theirs(1.0), 1.0, 1.0)
    for second in range(2, 10):
        drifted = int(second * 500)  # 500 ppm
        clock.learn(theirs(second) + drifted, second - 0.002, second + 0.002)
    grant = clock.grant(theirs(10.0) + 5000, 0.015)
    assert 10.0 - 0.001 <= grant.opens <= 10.0 + SURE


def test_the_lead_follows_the_slowest_of_the_last_replies() -> None:
    clock = StoreClock()
    clock.learn(theirs(1.0), 1.0, 1.0)
    clock.arrived(theirs(1.0), 1.05)
    assert clock.lead == pytest.approx(0.05)
    for _ in range(30):
        clock.arrived(theirs(2.0), 2.001)
    assert clock.lead == pytest.approx(0.001, abs=1e-5)


def test_answers_come_in_the_order_of_the_asks() -> None:
    clock = StoreClock()
    clock.learn(theirs(5.0), 5.0, 5.0)
    key = ("k", Rate(1, 1.0))
    asks = [Ask((key, ("long", Rate(1, 60.0)))), Ask(()), Ask((key,))]
    verdicts = [Verdict(theirs(5.25), None), Verdict(theirs(6.0), "k")]
    given, free, refused = answers(asks, verdicts, clock, theirs(5.0), 400_000)
    assert isinstance(given, Grant)
    assert given.opens == pytest.approx(5.25, abs=1e-5)
    # The shortest validity of its limits counts.
    assert given.closes == pytest.approx(5.26, abs=1e-5)
    assert free == Grant(float("-inf"), float("inf"))
    assert isinstance(refused, Refusal)
    assert refused.key == "k"
    assert refused.wait == pytest.approx(0.8, abs=1e-5)
    assert waits([key], [verdicts[1]], theirs(5.0)) == {"k": pytest.approx(1.0, abs=1e-5)}
