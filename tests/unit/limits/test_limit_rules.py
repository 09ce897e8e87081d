from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailgate.config.terms import Rate
from mailgate.limits.rules import (
    COUNTED,
    MAX_AHEAD,
    MAX_HORIZON,
    Ask,
    State,
    Verdict,
    admit,
    interval,
    most,
    pace,
    validity,
)
from tests.unit.limits.promise import allowed, fullest, worst

NOW = 1_800_000_000_000_000
SECOND = 1_000_000


@dataclass
class Store:
    """The algorithm with its states, and a book of all that was given."""

    states: dict[str, State] = field(default_factory=dict)
    given: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    rates: dict[str, Rate] = field(default_factory=dict)

    def ask(
        self, asks: list[Ask], now: int, horizon: int, lead: int = 0, since: int = 0
    ) -> list[Verdict]:
        verdicts, _ = admit(self.states, asks, now=now, horizon=horizon, lead=lead, since=since)
        for ask, verdict in zip(asks, verdicts, strict=True):
            for key, rate in ask.keys:
                self.rates[key] = rate
                if verdict.refused_by is None:
                    self.given[key].append(verdict.moment)
        return verdicts

    def check(self) -> None:
        for key, moments in self.given.items():
            rate = self.rates[key]
            assert worst(moments, rate) <= allowed(rate), (key, rate)


def saturate(
    store: Store, batches: list[list[Ask]], seconds: float, seed: int = 0
) -> tuple[int, int]:
    """Some workers, one a batch, ask again whenever they may; first and last microsecond."""
    chance = random.Random(seed)
    horizon = 400_000
    turns = [NOW + chance.randrange(horizon) for _ in batches]
    end = NOW + int(seconds * SECOND)
    while min(turns) < end:
        worker = min(range(len(turns)), key=turns.__getitem__)
        now = turns[worker]
        asks = chance.sample(batches[worker], len(batches[worker]))
        verdicts = store.ask(asks, now, horizon)
        waits = [v.moment - now - horizon // 2 for v in verdicts if v.refused_by]
        turns[worker] = now + (min(waits) if waits else horizon // 2)
    return NOW + SECOND, end


def used(store: Store, key: str, span: tuple[int, int]) -> float:
    begin, end = span
    count = sum(begin <= moment < end for moment in store.given[key])
    rate = store.rates[key]
    return count / (rate.limit / rate.period * (end - begin) / SECOND)


rates = st.builds(
    Rate,
    st.sampled_from([1, 2, 3, 14, 50, COUNTED - 1, COUNTED, 1000]) | st.integers(1, 60),
    st.sampled_from([1.0, 1.0, 2.0, 10.0]),
    st.sampled_from([1, 1, 2, 5]),
)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_window_of_any_limit_holds_more_than_it_promises(data: st.DataObject) -> None:
    known = {
        f"k{i}": rate for i, rate in enumerate(data.draw(st.lists(rates, min_size=1, max_size=5)))
    }
    subsets = st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=4, unique=True)
    store, now = Store(), NOW
    for _ in range(data.draw(st.integers(1, 12))):
        now += data.draw(st.sampled_from([0, 1, 999, 15_000, 200_000, 400_000, 1_300_000]))
        horizon = data.draw(st.sampled_from([0, 10_000, 400_000, 900_000]))
        asks: list[Ask] = []
        for _ in range(data.draw(st.integers(1, 4))):
            keys = tuple((key, known[key]) for key in data.draw(subsets))
            asks += [Ask(keys)] * data.draw(st.sampled_from([1, 2, 9, 40]))
        lead = data.draw(st.sampled_from([0, 0, 300, 20_000]))
        for verdict in store.ask(asks, now, horizon, lead):
            assert verdict.moment >= now + lead
            assert (verdict.refused_by is None) == (verdict.moment <= now + lead + horizon)
    store.check()


@given(rates, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_uses_at_any_time_within_the_validity_keep_the_limit(rate: Rate, seed: int) -> None:
    chance, store = random.Random(seed), Store()
    saturate(store, [[Ask((("k", rate),))] * 40], 2 * rate.period + 1)
    uses = [m + chance.randrange(int(validity(rate) * SECOND)) for m in store.given["k"]]
    assert fullest(uses, round(rate.period * SECOND)) <= allowed(rate)


PLAIN = [Rate(n, 1.0) for n in (1, 14, 50, 399, 400, 1000, 5000)] + [Rate(100, 60.0)]
BURSTS = [Rate(14, 1.0, 20), Rate(30, 10.0, 2)]


@pytest.mark.parametrize("rate", PLAIN + BURSTS, ids=str)
def test_a_saturated_limit_is_used_to_98_percent(rate: Rate) -> None:
    store = Store()
    periods = 20 if rate.period == 1.0 else 3
    size = max(50, int(rate.limit / rate.period))
    saturate(store, [[Ask((("k", rate),))] * size], (periods + 1) * rate.period)
    moments = store.given["k"]
    end = moments[0] + int(periods * rate.period * SECOND)
    assert sum(moment < end for moment in moments) >= 0.98 * rate.limit * periods
    store.check()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("each", [30, 33, 40, 27])
def test_two_limits_share_a_third_without_loss(each: int, seed: int) -> None:
    """Spacing of 33 ms leaves gaps too small for rigid slots of 20 ms; they are used."""
    shared, own = ("global", Rate(50, 1.0)), Rate(each, 1.0)
    store = Store()
    batches = [[Ask((shared, (f"relay:{n}", own)))] * 30 for n in (0, 1, 0, 1)]
    span = saturate(store, batches, 15, seed)
    assert used(store, "global", span) >= 0.975
    store.check()


def test_one_slow_limit_takes_nothing_from_a_shared_one() -> None:
    shared = ("global", Rate(50, 1.0))
    slow, fast = Ask((shared, ("slow", Rate(3, 1.0)))), Ask((shared,))
    store = Store()
    span = saturate(store, [[slow] * 20 + [fast] * 40] * 2, 15)
    assert used(store, "global", span) >= 0.98
    assert used(store, "slow", span) >= 0.9
    store.check()


def test_a_moment_far_ahead_leaves_the_time_before_it_to_others() -> None:
    shared, slow = ("global", Rate(10, 1.0)), ("slow", Rate(3, 1.0))
    store = Store()
    far = store.ask([Ask((shared, slow))] * 3, NOW, 900_000)[-1]
    assert far == Verdict(NOW + interval(slow[1]), None)
    between = store.ask([Ask((shared,))] * 20, NOW, 900_000)
    assert sum(v.refused_by is None and v.moment < far.moment for v in between) >= 2
    store.check()


def test_a_refusal_names_the_tightest_limit_and_charges_nothing() -> None:
    loose, tight = ("global", Rate(1000, 1.0)), ("relay:main", Rate(1, 1.0))
    store = Store()
    given_, refused = store.ask([Ask((loose, tight))] * 2, NOW, 400_000)
    assert given_.refused_by is None
    assert refused.refused_by == "relay:main"
    assert refused.moment == NOW + pace(tight[1]).window
    before = dict(store.states)
    again, changed = admit(store.states, [Ask((loose, tight))], now=NOW, horizon=400_000)
    assert again == [refused]
    assert changed == {}
    assert store.states == before


def test_a_negative_horizon_gives_nothing() -> None:
    states: dict[str, State] = {}
    verdicts, changed = admit(states, [Ask((("k", Rate(5, 1.0)),))], now=NOW, horizon=-1)
    assert verdicts == [Verdict(NOW, "k")]
    assert (states, changed) == ({}, {})


def test_an_ask_without_limits_is_given_at_once() -> None:
    assert admit({}, [Ask(())], now=NOW, horizon=0)[0] == [Verdict(NOW, None)]


def test_a_burst_goes_at_once_and_then_at_the_pace() -> None:
    rate = Rate(14, 1.0, 20)
    store = Store()
    verdicts = store.ask([Ask((("k", rate),))] * 30, NOW, 900_000)
    moments = [v.moment for v in verdicts if v.refused_by is None]
    assert moments[:20] == [NOW] * 20
    gaps = [after - before for before, after in pairwise(moments[19:])]
    assert gaps == [interval(rate)] * 10
    assert most(rate) == 33


def test_a_limit_of_one_keeps_a_whole_period_and_the_validity_between() -> None:
    store = Store()
    store.ask([Ask((("k", Rate(1, 1.0)),))], NOW, 0)
    [second] = store.ask([Ask((("k", Rate(1, 1.0)),))], NOW, 900_000)
    assert second.moment == NOW + SECOND + 15_000


@pytest.mark.parametrize(
    ("rate", "valid"),
    [(Rate(14, 1.0), 0.015), (Rate(9, 10.0), 0.15), (Rate(9, 60.0), 0.25), (Rate(9, 3600.0), 0.25)],
    ids=str,
)
def test_a_permit_is_valid_for_a_share_of_its_period(rate: Rate, valid: float) -> None:
    assert validity(rate) == pytest.approx(valid)


def test_forgotten_permits_are_waited_out() -> None:
    """The store remembers since NOW; what it gave before may be used until the horizon is over."""
    asks = [Ask((("k", Rate(5, 1.0)),))]
    [verdict] = admit({}, asks, now=NOW + 10, horizon=400_000, since=NOW)[0]
    assert verdict == Verdict(NOW + int(MAX_HORIZON * SECOND) + 1_015_000, "k")
    later = NOW + 3 * SECOND
    assert admit({}, asks, now=later, horizon=0, since=NOW)[0] == [Verdict(later, None)]


@pytest.mark.parametrize("rate", [Rate(5, 1.0), Rate(5, 1.0, 3), Rate(900, 1.0)], ids=str)
def test_a_clock_set_back_by_an_hour_stops_a_limit_for_no_more_than_its_period(rate: Rate) -> None:
    store = Store()
    store.ask([Ask((("k", rate),))] * 3, NOW, 400_000)
    back = NOW - 3600 * SECOND
    [verdict] = store.ask([Ask((("k", rate),))], back, 400_000)
    assert verdict.refused_by == "k"
    assert verdict.moment == back + int(MAX_HORIZON * SECOND) + pace(rate).window
    # And it stays at that: asking on does not push it further away.
    [again] = store.ask([Ask((("k", rate),))], back + SECOND, 400_000)
    assert again.moment == verdict.moment
    [given_] = store.ask([Ask((("k", rate),))], verdict.moment, 400_000)
    assert given_.refused_by is None


def test_a_clock_set_back_a_little_gives_no_more() -> None:
    rate = Rate(10, 1.0)
    store, now = Store(), NOW
    for step in range(40):
        now += 100_000 if step % 5 else -30_000
        store.ask([Ask((("k", rate),))] * 10, now, 200_000)
    store.check()


def test_the_memory_of_a_limit_is_bounded() -> None:
    """At most what a window counts, and a bounded number of gaps."""
    shared = ("global", Rate(300, 1.0))
    slow = [Ask((shared, (f"slow:{n}", Rate(3, 1.0)))) for n in range(200)]
    store = Store()
    now = NOW
    for _ in range(30):
        now += 70_000
        store.ask(slow, now, 900_000)
        state = store.states["global"]
        assert len(state.behind) + len(state.ahead) <= 2 * 300
    admit(store.states, [Ask((shared,))], now=now, horizon=900_000)
    assert len(store.states["global"].ahead) <= MAX_AHEAD + 1
    store.check()
