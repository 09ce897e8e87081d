"""A limit whose state was lost goes on, from what is known of its uses, as if it were not."""

from __future__ import annotations

import random

import pytest

from mailgate.config.terms import Rate
from mailgate.limits.memory import Use, remembered
from mailgate.limits.rules import COUNTED, Ask, State, admit, most, pace, validity
from tests.unit.limits.promise import fullest

RATES = [
    Rate(20, 3600.0),
    Rate(1, 60.0),
    Rate(30, 1.0),
    Rate(100, 60.0),
    Rate(COUNTED, 1.0),
    Rate(1000, 60.0),
    Rate(5, 1.0, 10),
    Rate(50, 60.0, 20),
]


def moved(state: State, by: int) -> State:
    return State(state.tat + by, [m + by for m in state.ahead], [m + by for m in state.behind])


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_never_more_than_promised_whenever_it_is_lost_and_however_late_uses_are_told(
    rate: Rate, seed: int
) -> None:
    chance = random.Random(seed)
    states: dict[str, State] = {}
    ask = Ask((("k", rate),))
    now, step = 1_000_000_000_000, int(rate.period * 1e6 / 12)
    used: list[int] = []
    told: list[int] = []
    lost = 0
    for _ in range(60):
        now += chance.randint(0, step)
        verdicts, _ = admit(states, [ask] * chance.choice([0, 1, 40]), now=now, horizon=400_000)
        for verdict in verdicts:
            if verdict.refused_by is None:
                use = verdict.moment + int(chance.random() * validity(rate) * 1e6 * 0.99)
                used.append(use)
                told.append(use + chance.choice([0, 1000, step // 3]))
        if chance.random() < 0.2:
            now = max(now + 1_250_000, *used) if used else now
            uses = [Use(max(0, now - at), 1) for at in told]
            states, lost = {"k": moved(remembered(rate, uses), now)}, lost + 1
    assert lost
    assert fullest(used, rate.period * 1e6) <= most(rate)


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_what_was_not_used_is_left(rate: Rate) -> None:
    """Half of it was used half a period ago: the other half may go now."""
    uses = [Use(int(rate.period * 5e5), 1)] * (most(rate) // 2)
    states = {"k": moved(remembered(rate, uses), now := 10**12)}
    left = 0
    while now < 10**12 + rate.period * 4e5:
        [verdict], _ = admit(states, [Ask((("k", rate),))], now=now, horizon=0)
        left += verdict.refused_by is None
        now = max(now + 1, verdict.moment)
    spread = rate.limit * 0.4
    assert left >= int(min(spread, most(rate) - len(uses)) * 0.9)


def test_one_told_use_of_many_is_as_many_uses() -> None:
    for rate in RATES:
        many = remembered(rate, [Use(1000, 1)] * 7)
        assert remembered(rate, [Use(1000, 7)]) == many


def test_what_is_over_leaves_an_idle_limit() -> None:
    for rate in RATES:
        window = pace(rate).window
        assert remembered(rate, [Use(window, 5)]) == remembered(rate, [])
        assert remembered(rate, []).tat <= -window


def test_more_uses_than_a_limit_can_have_given_wait_for_one_window_only() -> None:
    for rate in RATES:
        state = remembered(rate, [Use(0, 10 * most(rate))])
        [verdict], _ = admit(
            {"k": moved(state, 10**12)}, [Ask((("k", rate),))], now=10**12, horizon=-1
        )
        assert pace(rate).window <= verdict.moment - 10**12 <= pace(rate).window + 1
