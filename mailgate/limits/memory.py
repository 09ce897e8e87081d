"""What a limit remembers, made anew from what is known of its uses.

Owns the arithmetic by which a store that was wiped goes on as if nothing had been lost.
Pure; never asks who knows (``dispatch.recall``) and never writes (``limits.redis``).

**Why it keeps the promise.** A use may be told later than it was, never earlier. Of the
uses that really lie in a window that begins at ``a``, each is then told at ``a`` or
later. So at least as many slots lie end to end behind ``a``, and as many moments are
counted behind it, as there were uses: what the window still admits is what is left.
Uses may stand closer together than permits ever do; then their slots reach further, but
never over the time at which every window with such a use in it is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mailgate.config.terms import Rate
from mailgate.limits.rules import State, pace


class Use(NamedTuple):
    """``times`` uses of a limit, none of them longer ago than ``ago`` microseconds."""

    ago: int
    times: int


def remembered(rate: Rate, uses: Iterable[Use]) -> State:
    """The state of a limit after ``uses``, with now as the zero of its times."""
    interval, tolerance, window, cap = pace(rate)
    tat, last = -window - tolerance, -window
    moments: list[int] = []
    for ago, times in sorted(uses, reverse=True):
        if ago >= window:
            continue
        last = -max(0, ago)
        tat = max(tat, last) + times * interval
        moments += [last] * min(times, cap)
    return State(min(tat, last + window + tolerance), [], moments[-cap:] if cap else [])
