"""Shares: which of the due recipients take the free places.

Owns lane order, the floor below which no lane starves, and fair turns between
producers. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from mailgate.journal.arrivals import BucketKey
from mailgate.model.state import Lane

T = TypeVar("T")

ORDER = (Lane.HIGH, Lane.NORMAL, Lane.BULK)

#: The share of every take that a lane keeps, however busy the ones above it are.
FLOOR: Mapping[Lane, float] = {Lane.HIGH: 1.0, Lane.NORMAL: 0.25, Lane.BULK: 0.1}


def lanes_of(ring: Lane) -> tuple[Lane, ...]:
    """What a ring for a lane makes a worker look at: that lane and all above it."""
    return ORDER[: ORDER.index(ring) + 1]


def pick(due: Iterable[tuple[BucketKey, Sequence[T]]], want: int) -> list[T]:
    """Up to ``want`` of the heads in ``due``.

    Lanes go in order, each lower one keeping its floor where it has work; within
    a lane producers take turns, and a producer's buckets take turns.
    """
    queues: dict[Lane, dict[str, list[Sequence[T]]]] = {}
    for key, heads in due:
        if heads:
            queues.setdefault(key.lane, {}).setdefault(key.producer, []).append(heads)
    by_lane = {
        lane: list(_turns([list(_turns(buckets)) for buckets in producers.values()]))
        for lane, producers in queues.items()
    }
    counts = shares({lane: len(heads) for lane, heads in by_lane.items()}, want)
    return [head for lane in ORDER if lane in counts for head in by_lane[lane][: counts[lane]]]


def shares(waiting: Mapping[Lane, int], want: int) -> dict[Lane, int]:
    """How many places each lane gets of ``want``."""
    floors = {
        lane: min(count, math.ceil(want * FLOOR[lane]))
        for lane, count in waiting.items()
        if lane is not Lane.HIGH and count
    }
    left = want
    out: dict[Lane, int] = {}
    for lane in ORDER:
        if not waiting.get(lane):
            continue
        kept = sum(n for other, n in floors.items() if ORDER.index(other) > ORDER.index(lane))
        out[lane] = max(0, min(waiting[lane], left - min(kept, left)))
        if lane in floors:
            out[lane] = min(left, max(out[lane], floors[lane]))
        left -= out[lane]
    return out


def _turns(queues: Sequence[Sequence[T]]) -> Iterable[T]:
    """One from each in turn until all are empty."""
    for place in range(max((len(q) for q in queues), default=0)):
        for queue in queues:
            if place < len(queue):
                yield queue[place]
