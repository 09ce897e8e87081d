"""Which of the due recipients take the free places."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.dispatch.lanes import FLOOR, ORDER, Shares, lanes_of, pick
from mailgate.journal.arrivals import BucketKey
from mailgate.model.state import Lane

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


def bucket(lane: Lane, producer: str, n: int = 0) -> BucketKey:
    return BucketKey(lane, producer, ("relay",), f"d{n}")


def test_producers_take_turns_whatever_they_have_waiting() -> None:
    due = [
        (bucket(Lane.NORMAL, "flood", 0), ["flood"] * 100),
        (bucket(Lane.NORMAL, "flood", 1), ["flood"] * 100),
        (bucket(Lane.NORMAL, "small"), ["small"] * 5),
        (bucket(Lane.NORMAL, "middle"), ["middle"] * 20),
    ]
    assert Counter(pick(due, 30)) == {"small": 5, "flood": 13, "middle": 12}
    assert Counter(pick(due, 3)) == {"small": 1, "flood": 1, "middle": 1}


def test_buckets_of_one_producer_take_turns() -> None:
    due = [(bucket(Lane.NORMAL, "one", n), [n] * 10) for n in range(3)]
    assert Counter(pick(due, 9)) == {0: 3, 1: 3, 2: 3}


def test_each_bucket_keeps_its_order() -> None:
    due = [(bucket(Lane.HIGH, p), [f"{p}{n}" for n in range(5)]) for p in "ab"]
    picked = pick(due, 6)
    assert [x for x in picked if x[0] == "a"] == ["a0", "a1", "a2"]
    assert [x for x in picked if x[0] == "b"] == ["b0", "b1", "b2"]


@given(
    st.lists(
        st.tuples(st.sampled_from(ORDER), st.sampled_from("abc"), st.integers(0, 9)), max_size=12
    ),
    st.integers(0, 40),
)
def test_a_pick_is_of_what_is_due_and_fair(buckets: list[tuple[Lane, str, int]], want: int) -> None:
    due = [
        (bucket(lane, producer, n), [(lane, producer, n, i) for i in range(size)])
        for n, (lane, producer, size) in enumerate(buckets)
    ]
    picked = pick(due, want)
    waiting = Counter((lane, producer) for lane, producer, size in buckets for _ in range(size))
    assert len(picked) == len(set(picked)) == min(want, waiting.total())
    got = Counter((lane, producer) for lane, producer, _, _ in picked)
    for (lane, producer), count in waiting.items():
        most = max((n for (other, _), n in got.items() if other is lane), default=0)
        # Who was given less than another of the lane by more than a turn had no more.
        assert got[lane, producer] in (count, most, most - 1) or got[lane, producer] == count
