"""What a limit promises, checked on moments the plain way: by looking at every window."""

from __future__ import annotations

from collections.abc import Iterable

from mailgate.config.terms import Rate
from mailgate.limits.rules import validity


def fullest(uses: Iterable[float], period: float) -> int:
    """The most uses in any half-open window of ``period``."""
    ordered = sorted(uses)
    most = first = 0
    for last, use in enumerate(ordered):
        while use - ordered[first] >= period:
            first += 1
        most = max(most, last - first + 1)
    return most


def allowed(rate: Rate) -> int:
    return rate.limit + rate.burst - 1


def worst(moments: list[int], rate: Rate) -> int:
    """The most uses a window could hold, if each permit is used at the worst time in its validity.

    Late uses before early ones squeeze together: of the moments in an open interval
    of period + validity all can be used in one window.
    """
    ordered = sorted(moments)
    width = round((rate.period + validity(rate)) * 1e6)
    return fullest(ordered, width)
