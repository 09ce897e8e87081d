"""Shares: which of the due recipients take the free places.

Owns lane order, the floor below which no lane starves, the places that are kept for
urgent mail, and weighted turns between producers, their buckets, and fresh mail and
retries. Knows no clock and no journal.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from mailgate.journal.arrivals import BucketKey
from mailgate.model.state import Lane

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

ORDER = (Lane.HIGH, Lane.NORMAL, Lane.BULK)

#: The share of all places that a lane keeps, however busy the ones above it are.
FLOOR: Mapping[Lane, float] = {Lane.HIGH: 1.0, Lane.NORMAL: 0.25, Lane.BULK: 0.1}

#: Turns of a bucket's fresh mail for one of its retries, while both wait.
FRESH = 3

#: Buckets that no longer wait are forgotten when more than so many are remembered.
_REMEMBERED = 10_000


def lanes_of(ring: Lane) -> tuple[Lane, ...]:
    """What a ring for a lane makes a worker look at: that lane and all above it."""
    return ORDER[: ORDER.index(ring) + 1]


def kept_for_urgent(places: int, share: float) -> int:
    """How many of ``places`` only the high lane may use; at least one of four or more."""
    kept = round(places * share)
    return max(kept, 1) if share > 0 and places >= 4 else kept


@dataclass(frozen=True, slots=True)
class Due(Generic[T]):
    """What waits in a bucket, in its order: what was not tried yet, and what was."""

    key: BucketKey
    fresh: Sequence[T]
    retries: Sequence[T] = ()


class Shares:
    """Places by lane, over the takes of one process.

    What a lane is owed adds up in fractions: with one place a take, a floor that
    is rounded up would give it to the lowest lane each time, and rounded down never.
    """

    def __init__(self) -> None:
        self._owed: dict[Lane, float] = {}

    def of(self, waiting: Mapping[Lane, int], want: int, kept: int = 0) -> dict[Lane, int]:
        """How many places each lane with something ``waiting`` gets of ``want``.

        ``kept`` of them are for the high lane only. Lanes go in order; a lower one keeps
        its floor, and gets what is left over.
        """
        open_ = max(0, want - kept)
        floors: dict[Lane, int] = {}
        for lane in ORDER:
            if lane is not Lane.HIGH and waiting.get(lane):
                share = want * FLOOR[lane]
                self._owed[lane] = min(self._owed.get(lane, 0.0) + share, 1.0 + share)
                floor = int(self._owed[lane] + 1e-9)
                floors[lane] = min(waiting[lane], open_ - sum(floors.values()), floor)
        out: dict[Lane, int] = {}
        left = want
        for lane in ORDER:
            if not waiting.get(lane):
                continue
            below = sum(n for other, n in floors.items() if ORDER.index(other) > ORDER.index(lane))
            most = left if lane is Lane.HIGH else min(left, open_)
            out[lane] = min(waiting[lane], most, max(most - below, floors.get(lane, 0)))
            left -= out[lane]
            if lane is not Lane.HIGH:
                open_ -= out[lane]
            if lane in floors:
                self._owed[lane] = max(0.0, self._owed[lane] - out[lane])
        return out


class Turns(Generic[K]):
    """Whose turn it is, by weight, over the takes of one process (start-time fair queuing).

    Each turn moves its owner on by 1 / weight, and the one that is least far on is next.
    Who was not waiting begins where the others are: absence earns no turns.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._at: dict[K, float] = {}

    def order(self, queues: Mapping[K, Iterable[T]], weight: Callable[[K], float]) -> Iterator[T]:
        """All of ``queues``, one turn after another; what is not asked for is not charged."""
        if len(queues) == 1:
            # Alone nobody gets ahead of anybody.
            yield from next(iter(queues.values()))
            return
        # Who is no further on than the others needs no memory.
        self._at = {key: at for key, at in self._at.items() if at > self._now}
        line: list[tuple[float, int, K, Iterator[T]]] = [
            (max(self._at.get(key, 0.0), self._now), n, key, iter(queue))
            for n, (key, queue) in enumerate(queues.items())
        ]
        heapq.heapify(line)
        while line:
            at, n, key, queue = line[0]
            for item in islice(queue, 1):
                self._now = max(self._now, at)
                self._at[key] = at = at + 1 / weight(key)
                heapq.heapreplace(line, (at, n, key, queue))
                yield item
                break
            else:
                heapq.heappop(line)


class Places:
    """Who of all that is due gets the free places, over the takes of one process.

    ``weight`` is a producer's.
    """

    def __init__(self, weight: Callable[[str], float] = lambda producer: 1.0) -> None:
        self._weight = weight
        self._shares = Shares()
        self._producers: dict[Lane, Turns[str]] = {lane: Turns() for lane in ORDER}
        self._buckets: dict[tuple[Lane, str], Turns[BucketKey]] = {}
        self._kinds: dict[BucketKey, Turns[float]] = {}

    def pick(self, due: Iterable[Due[T]], want: int, kept: int = 0) -> list[T]:
        """Up to ``want`` of the heads in ``due``; ``kept`` places are for the high lane only.

        Lanes share the places (``Shares``); within a lane producers take turns by weight,
        a producer's buckets take turns, and in a bucket ``FRESH`` go for one that is tried
        again.
        """
        lanes: dict[Lane, dict[str, list[Due[T]]]] = {}
        for d in due:
            if d.fresh or d.retries:
                lanes.setdefault(d.key.lane, {}).setdefault(d.key.producer, []).append(d)
        waiting = {
            lane: sum(len(d.fresh) + len(d.retries) for several in by.values() for d in several)
            for lane, by in lanes.items()
        }
        counts = self._shares.of(waiting, want, kept)
        if len(self._kinds) > _REMEMBERED:
            self._kinds.clear()
        picked: list[T] = []
        for lane in ORDER:
            if counts.get(lane):
                queues = {name: self._of(lane, name, ds) for name, ds in lanes[lane].items()}
                line = self._producers[lane].order(queues, self._weight)
                picked += islice(line, counts[lane])
        return picked

    def _of(self, lane: Lane, producer: str, due: Sequence[Due[T]]) -> Iterator[T]:
        turns = self._buckets.setdefault((lane, producer), Turns())
        return turns.order({d.key: self._in(d) for d in due}, lambda key: 1.0)

    def _in(self, d: Due[T]) -> Iterable[T]:
        if not (d.fresh and d.retries):
            return d.fresh or d.retries
        turns = self._kinds.setdefault(d.key, Turns())
        return turns.order({float(FRESH): d.fresh, 1.0: d.retries}, lambda weight: weight)


def looked_at(
    buckets: Iterable[BucketKey], want: int, weight: Callable[[str], float]
) -> dict[BucketKey, int]:
    """How many heads of each bucket to look at, so that ``want`` can be shared fairly.

    With many buckets a few of each will do: twice what each could get, at least two; a
    producer's share is its own however many buckets others have.
    """
    producers: dict[Lane, dict[str, int]] = {}
    keys = list(buckets)
    for key in keys:
        several = producers.setdefault(key.lane, {})
        several[key.producer] = several.get(key.producer, 0) + 1
    out = {}
    for key in keys:
        several = producers[key.lane]
        if several == {key.producer: 1}:
            out[key] = want
            continue
        total = sum(weight(name) for name in several)
        share = weight(key.producer) / total / several[key.producer]
        out[key] = min(want, max(2, -int(-2 * want * share // 1)))
    return out
