"""Shares: which of the due recipients take the free places.

Owns lane order, the floor below which no lane starves, and fair turns between
producers. Knows no clock and no journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from mailgate.journal.arrivals import BucketKey
from mailgate.model.state import Lane

T = TypeVar("T")

ORDER = (Lane.HIGH, Lane.NORMAL, Lane.BULK)

#: The share of all places that a lane keeps, however busy the ones above it are.
FLOOR: Mapping[Lane, float] = {Lane.HIGH: 1.0, Lane.NORMAL: 0.25, Lane.BULK: 0.1}


def lanes_of(ring: Lane) -> tuple[Lane, ...]:
    """What a ring for a lane makes a worker look at: that lane and all above it."""
    return ORDER[: ORDER.index(ring) + 1]


class Shares:
    """Places by lane, over the takes of one process.

    What a lane is owed adds up in fractions: with one place a take, a floor that
    is rounded up would give it to the lowest lane each time, and rounded down never.
    """

    def __init__(self) -> None:
        self._owed: dict[Lane, float] = {}

    def of(self, waiting: Mapping[Lane, int], want: int) -> dict[Lane, int]:
        """How many places each lane with something ``waiting`` gets of ``want``.

        Lanes go in order; a lower one keeps its floor, and gets what is left over.
        """
        kept: dict[Lane, int] = {}
        for lane in ORDER:
            if lane is not Lane.HIGH and waiting.get(lane):
                share = want * FLOOR[lane]
                self._owed[lane] = min(self._owed.get(lane, 0.0) + share, 1.0 + share)
                kept[lane] = min(waiting[lane], int(self._owed[lane] + 1e-9))
        out: dict[Lane, int] = {}
        left = want
        for lane in ORDER:
            if not waiting.get(lane):
                continue
            below = sum(n for other, n in kept.items() if ORDER.index(other) > ORDER.index(lane))
            out[lane] = min(waiting[lane], left, max(left - below, kept.get(lane, 0)))
            left -= out[lane]
            if lane in kept:
                self._owed[lane] = max(0.0, self._owed[lane] - out[lane])
        return out


def pick(
    due: Iterable[tuple[BucketKey, Sequence[T]]], want: int, shares: Shares | None = None
) -> list[T]:
    """Up to ``want`` of the heads in ``due``.

    Lanes share the places by ``shares``; within a lane producers take turns, and
    a producer's buckets take turns.
    """
    queues: dict[Lane, dict[str, list[Sequence[T]]]] = {}
    for key, heads in due:
        if heads:
            queues.setdefault(key.lane, {}).setdefault(key.producer, []).append(heads)
    by_lane = {
        lane: list(_turns([list(_turns(buckets)) for buckets in producers.values()]))
        for lane, producers in queues.items()
    }
    waiting = {lane: len(heads) for lane, heads in by_lane.items()}
    counts = (shares or Shares()).of(waiting, want)
    return [head for lane in ORDER if lane in counts for head in by_lane[lane][: counts[lane]]]


def _turns(queues: Sequence[Sequence[T]]) -> Iterable[T]:
    """One from each in turn until all are empty."""
    for place in range(max((len(q) for q in queues), default=0)):
        for queue in queues:
            if place < len(queue):
                yield queue[place]
