"""Where a store's clock stands against this process's, so that a permit is never used early.

Owns the bounds on the difference and how long replies take. Never asks the time itself:
the stores hand in what they saw.

A store that read ``theirs`` between our ``before`` and ``after`` bounds the difference:
theirs - after <= difference <= theirs - before. Over some replies the bounds close in
on the quickest way there and the quickest way back, however slow the others were.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailgate.config.terms import Rate
from mailgate.limits.rules import ON_THE_WAY, Ask, Grant, Refusal, Verdict, validity

#: How often a store's clock is looked at before the first permit, at most.
LOOKS = 5
#: Bounds as close as this are good enough; of wider ones the middle is taken, and so
#: the ways there and back may differ by no more than this (seconds).
SURE = 0.004
#: Bounds older than two of these are forgotten: clocks drift (seconds).
_KEPT = 2.0


class StoreClock:
    """All arguments are seconds of ``time.monotonic()``, or microseconds of the store's clock."""

    def __init__(self) -> None:
        self._low = self._high = 0.0
        self._recent: tuple[float, float] | None = None
        self._older: tuple[float, float] | None = None
        self._turned = float("-inf")
        #: How long after the store's moment a reply is expected to be in our hands.
        self.lead = 0.0

    @property
    def sure(self) -> bool:
        return self._recent is not None and self._high - self._low <= SURE * 1e6

    def learn(self, theirs: int, before: float, after: float) -> None:
        if after - self._turned > _KEPT:
            kept = after - self._turned <= 2 * _KEPT
            self._older, self._recent = (self._recent if kept else None), None
            self._turned = after
        seen = (theirs - after * 1e6, theirs - before * 1e6)
        self._recent = _both(self._recent, seen)
        low, high = _both(self._older, self._recent)
        if low > high:
            # One of the clocks was set, or drifts: only the latest look counts.
            self._older, self._recent = None, seen
            low, high = seen
        self._low, self._high = low, high

    def arrived(self, theirs: int, now: float) -> None:
        """The reply made at ``theirs`` is in our hands."""
        took = now - self._ours(theirs)
        self.lead = max(took, 0.8 * self.lead)

    def grant(self, moment: int, valid: float) -> Grant:
        """The permit of ``moment`` that is valid for so many seconds."""
        half = min((self._high - self._low) / 2, SURE / 2 * 1e6)
        middle = self._ours(moment)
        return Grant(middle + half / 1e6, middle + valid - ON_THE_WAY - half / 1e6)

    def _ours(self, theirs: int) -> float:
        return (theirs - (self._low + self._high) / 2) / 1e6


def answers(
    asks: Sequence[Ask],
    verdicts: Sequence[Verdict],
    clock: StoreClock,
    start: int,
    horizon: int,
) -> list[Grant | Refusal]:
    """An answer for each ask: those without limits are granted, the others by the verdicts.

    ``start``, on the store's clock, and ``horizon`` are what the verdicts were made with.
    A refused asker comes back while half a horizon of its limit is still given away.
    """
    rest = iter(verdicts)
    said: list[Grant | Refusal] = []
    for ask in asks:
        if not ask.keys:
            said.append(Grant(float("-inf"), float("inf")))
            continue
        verdict = next(rest)
        if verdict.refused_by is None:
            valid = min(validity(rate) for _, rate in ask.keys)
            said.append(clock.grant(verdict.moment, valid))
        else:
            wait = verdict.moment - start - max(0, horizon) // 2
            said.append(Refusal(max(0, wait) / 1e6, verdict.refused_by))
    return said


def waits(
    keys: Sequence[tuple[str, Rate]], verdicts: Sequence[Verdict], start: int
) -> dict[str, float]:
    """Seconds until each key by itself would admit, from verdicts that charged nothing."""
    return {
        key: max(0, verdict.moment - start) / 1e6
        for (key, _), verdict in zip(keys, verdicts, strict=True)
    }


def _both(a: tuple[float, float] | None, b: tuple[float, float]) -> tuple[float, float]:
    return b if a is None else (max(a[0], b[0]), min(a[1], b[1]))
