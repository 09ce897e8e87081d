"""The numbers of one process, and what several processes come to together.

Owns counting, and a snapshot that is plain JSON. Nothing here locks, waits or touches
a file: it stands in the hot path. Count on one thread; any thread may take a snapshot.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mailgate.metrics.families import FAMILIES, Family

#: More series of one family than this go to one series, each of whose labels says ``other``.
MOST_SERIES = 1000

_Labels = tuple[str, ...]


class Tally:
    """Counts since the process began."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Family, _Labels], float] = {}
        self._spreads: dict[tuple[Family, _Labels], list[float]] = {}
        self._series: dict[Family, int] = {}

    def add(self, family: Family, labels: _Labels = (), n: float = 1) -> None:
        key = (family, labels)
        known = self._numbers.get(key)
        if known is None:
            key = self._bounded(key)
            known = self._numbers.get(key, 0)
        self._numbers[key] = known + n

    def set(self, family: Family, labels: _Labels, value: float) -> None:
        """Also for a counter that something else counts."""
        key = (family, labels)
        self._numbers[key if key in self._numbers else self._bounded(key)] = value

    def observe(self, family: Family, labels: _Labels, value: float) -> None:
        key = (family, labels)
        spread = self._spreads.get(key)
        if spread is None:
            # One number a bucket, the one beyond the last bound, and the sum.
            empty = [0.0] * (len(family.buckets) + 2)
            spread = self._spreads.setdefault(self._bounded(key), empty)
        spread[bisect_left(family.buckets, value)] += 1
        spread[-1] += value

    def _bounded(self, key: tuple[Family, _Labels]) -> tuple[Family, _Labels]:
        family, labels = key
        number = self._series.get(family, 0)
        if number >= MOST_SERIES:
            return family, ("other",) * len(labels)
        self._series[family] = number + 1
        return key

    def snapshot(self) -> dict[str, Any]:
        """Everything as JSON takes it."""
        numbers, spreads = self._numbers.copy(), self._spreads.copy()
        return {
            "numbers": [[f.name, list(labels), n] for (f, labels), n in numbers.items()],
            "spreads": [[f.name, list(labels), list(s)] for (f, labels), s in spreads.items()],
        }


@dataclass(slots=True)
class Totals:
    """What some snapshots come to together, by family and labels."""

    numbers: dict[tuple[str, _Labels], float] = field(default_factory=dict)
    spreads: dict[tuple[str, _Labels], list[float]] = field(default_factory=dict)

    def take(self, snapshot: Mapping[str, Any], *, gauges: bool = True) -> None:
        """Add a snapshot; without ``gauges`` only what was counted, as of a process that died."""
        for name, labels, number in snapshot["numbers"]:
            family = FAMILIES.get(name)
            if family is None or (family.kind == "gauge" and not gauges):
                continue
            key = (name, tuple(labels))
            known = self.numbers.get(key)
            if known is None:
                self.numbers[key] = number
            else:
                self.numbers[key] = max(known, number) if family.merge == "max" else known + number
        for name, labels, spread in snapshot["spreads"]:
            family = FAMILIES.get(name)
            if family is None or len(spread) != len(family.buckets) + 2:
                continue
            key = (name, tuple(labels))
            known_spread = self.spreads.get(key)
            if known_spread is None:
                self.spreads[key] = list(spread)
            else:
                self.spreads[key] = [a + b for a, b in zip(known_spread, spread, strict=True)]

    def number(self, family: Family, labels: Sequence[str] = ()) -> float:
        return self.numbers.get((family.name, tuple(labels)), 0.0)


def together(snapshots: Iterable[Mapping[str, Any]]) -> Totals:
    totals = Totals()
    for snapshot in snapshots:
        totals.take(snapshot)
    return totals
