"""Which of the due recipients take the free places."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.dispatch.lanes import (
    FLOOR,
    FRESH,
    ORDER,
    Due,
    Places,
    Shares,
    kept_for_urgent,
    lanes_of,
    looked_at,
)
from mailgate.journal.arrivals import BucketKey
from mailgate.model.state import Lane

T = TypeVar("T")
WAITING = st.dictionaries(st.sampled_from(ORDER), st.integers(0, 80))


def test_a_ring_looks_at_its_lane_and_all_above_it() -> None:
    assert lanes_of(Lane.HIGH) == (Lane.HIGH,)
    assert lanes_of(Lane.NORMAL) == (Lane.HIGH, Lane.NORMAL)
    assert lanes_of(Lane.BULK) == (Lane.HIGH, Lane.NORMAL, Lane.BULK)


@given(st.lists(st.tuples(WAITING, st.integers(0, 60)), max_size=30))
def test_every_place_is_used_and_none_twice(takes: list[tuple[dict[Lane, int], int]]) -> None:
    shares = Shares()
    for waiting, want in takes:
        given_ = shares.of(waiting, want)
        assert sum(given_.values()) == min(want, sum(waiting.values()))
        assert all(0 <= n <= waiting[lane] for lane, n in given_.items())


@pytest.mark.parametrize("want", [1, 2, 3, 7, 50])
def test_a_busy_lane_starves_none_below_it_however_few_the_places(want: int) -> None:
    """A worker whose places become free one by one takes one at a time."""
    shares = Shares()
    got: Counter[Lane] = Counter()
    takes = -(-1000 // want)
    for _ in range(takes):
        got.update(shares.of(dict.fromkeys(ORDER, 10_000), want))
    for lane in (Lane.NORMAL, Lane.BULK):
        assert got[lane] >= FLOOR[lane] * takes * want - 1
    assert got[Lane.HIGH] >= 0.6 * takes * want


@pytest.mark.parametrize("want", [1, 2, 3, 50])
@pytest.mark.parametrize("below", [Lane.NORMAL, Lane.BULK])
def test_high_overtakes_a_backlog_at_once(want: int, below: Lane) -> None:
    """A backlog that had the worker to itself has no claim on the next places."""
    shares = Shares()
    for _ in range(100):
        shares.of({below: 100_000}, want)
    assert shares.of({Lane.HIGH: 1, below: 100_000}, want)[Lane.HIGH] == 1


def test_what_is_owed_to_a_lane_does_not_pile_up_while_it_is_empty() -> None:
    shares = Shares()
    for _ in range(1000):
        shares.of({Lane.HIGH: 10, Lane.BULK: 0}, 1)
    got = [shares.of({Lane.HIGH: 10, Lane.BULK: 10}, 1) for _ in range(10)]
    assert sum(g[Lane.BULK] for g in got if Lane.BULK in g) <= 1


@given(
    st.lists(st.tuples(WAITING, st.integers(0, 60), st.integers(0, 10)), min_size=1, max_size=30)
)
def test_what_is_kept_for_the_high_lane_nobody_else_uses(
    takes: list[tuple[dict[Lane, int], int, int]],
) -> None:
    shares = Shares()
    for waiting, want, kept in takes:
        given_ = shares.of(waiting, want, kept)
        high = given_.get(Lane.HIGH, 0)
        others = sum(given_.values()) - high
        assert others <= max(0, want - kept)
        wanted = waiting.get(Lane.HIGH, 0), sum(waiting.values()) - waiting.get(Lane.HIGH, 0)
        # And no place stays empty that somebody may use.
        assert high + others == min(want, wanted[0] + min(wanted[1], max(0, want - kept)))


def test_how_many_places_are_kept() -> None:
    kept = {n: kept_for_urgent(n, 0.1) for n in (1, 3, 4, 20, 50)}
    assert kept == {1: 0, 3: 0, 4: 1, 20: 2, 50: 5}
    assert kept_for_urgent(50, 0.0) == 0


# --- producers, buckets, retries -----------------------------------------------------------


def due(lane: Lane, producer: str, fresh: list[T], retries: list[T], n: int = 0) -> Due[T]:
    return Due(BucketKey(lane, producer, ("relay",), f"d{n}"), fresh, retries)


NORMAL = Lane.NORMAL


def test_producers_take_turns_whatever_they_have_waiting() -> None:
    waiting = [
        due(NORMAL, "flood", ["flood"] * 100, [], 0),
        due(NORMAL, "flood", ["flood"] * 100, [], 1),
        due(NORMAL, "small", ["small"] * 5, []),
        due(NORMAL, "middle", ["middle"] * 20, []),
    ]
    assert Counter(Places().pick(waiting, 30)) == {"small": 5, "flood": 13, "middle": 12}
    assert Counter(Places().pick(waiting, 3)) == {"small": 1, "flood": 1, "middle": 1}


@pytest.mark.parametrize("want", [1, 3, 8, 50])
def test_producers_share_by_weight_however_few_the_places(want: int) -> None:
    weights = {"a": 1.0, "b": 3.0, "c": 4.0}
    places = Places(weights.__getitem__)
    got: Counter[str] = Counter()
    takes = -(-800 // want)
    for _ in range(takes):
        got.update(places.pick([due(NORMAL, p, [p] * want, []) for p in weights], want))
    for producer, weight in weights.items():
        assert abs(got[producer] - takes * want * weight / 8) <= 2


def test_who_was_away_has_saved_up_no_turns_and_is_served_at_once() -> None:
    places = Places()
    for _ in range(1000):
        places.pick([due(NORMAL, "flood", ["flood"], [])], 1)
    both = [due(NORMAL, "flood", ["flood"] * 9, []), due(NORMAL, "new", ["new"] * 9, [])]
    picked = [places.pick(both, 1)[0] for _ in range(10)]
    assert Counter(picked) == {"flood": 5, "new": 5}
    assert "new" in picked[:2]


def test_buckets_of_one_producer_take_turns() -> None:
    waiting = [due(NORMAL, "one", [n] * 10, [], n) for n in range(3)]
    assert Counter(Places().pick(waiting, 9)) == {0: 3, 1: 3, 2: 3}
    places = Places()
    one_by_one = Counter(places.pick(waiting, 1)[0] for _ in range(9))
    assert one_by_one == {0: 3, 1: 3, 2: 3}


@pytest.mark.parametrize("want", [1, 2, 8, 40])
def test_retries_never_block_fresh_mail_nor_it_them(want: int) -> None:
    places = Places()
    got: Counter[str] = Counter()
    for _ in range(400 // want):
        got.update(places.pick([due(NORMAL, "p", ["fresh"] * want, ["again"] * want)], want))
    assert abs(got["fresh"] - 400 * FRESH / (FRESH + 1)) <= 2
    # Alone, either has all.
    assert places.pick([due(NORMAL, "p", [], ["again"] * 3)], 3) == ["again"] * 3


def test_each_bucket_keeps_its_order() -> None:
    waiting = [due(Lane.HIGH, p, [f"{p}{n}" for n in range(5)], []) for p in "ab"]
    picked = Places().pick(waiting, 6)
    assert [x for x in picked if x[0] == "a"] == ["a0", "a1", "a2"]
    assert [x for x in picked if x[0] == "b"] == ["b0", "b1", "b2"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(ORDER), st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 9)
        ),
        max_size=12,
    ),
    st.integers(0, 40),
)
def test_a_pick_is_of_what_is_due_and_fair(
    buckets: list[tuple[Lane, str, int, int]], want: int
) -> None:
    waiting_ = [
        due(
            lane,
            producer,
            [(lane, producer, n, i) for i in range(fresh)],
            [(lane, producer, n, -1 - i) for i in range(retries)],
            n,
        )
        for n, (lane, producer, fresh, retries) in enumerate(buckets)
    ]
    picked = Places().pick(waiting_, want)
    waiting: Counter[tuple[Lane, str]] = Counter()
    for lane, producer, fresh, retries in buckets:
        waiting[lane, producer] += fresh + retries
    assert len(picked) == len(set(picked)) == min(want, waiting.total())
    got = Counter((lane, producer) for lane, producer, _, _ in picked)
    for (lane, producer), count in waiting.items():
        most = max((n for (other, _), n in got.items() if other is lane), default=0)
        # Who was given less than another of the lane by more than a turn had no more.
        assert got[lane, producer] in (count, most, most - 1)


def test_how_many_heads_are_looked_at_lets_each_producer_have_its_share() -> None:
    """However many buckets another has: domains with limits of their own, say."""
    many = [BucketKey(NORMAL, "many", ("relay",), f"d{n}") for n in range(100)]
    one = BucketKey(NORMAL, "one", ("relay",))
    high = BucketKey(Lane.HIGH, "many", ("relay",))
    looked = looked_at([*many, one, high], 50, {"many": 1.0, "one": 1.0}.__getitem__)
    assert (looked[many[0]], looked[one], looked[high]) == (2, 50, 50)
    looked = looked_at([many[0], one], 50, {"many": 9.0, "one": 1.0}.__getitem__)
    assert (looked[many[0]], looked[one]) == (50, 10)
    assert looked_at([many[0], one], 1, lambda _: 1.0) == {many[0]: 1, one: 1}
