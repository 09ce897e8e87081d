"""When a message may go: the arithmetic of rate limits, and the words for asking.

Owns what a permit is, what a limit promises and the one algorithm that keeps the
promise; ``admit.lua`` is the same algorithm, line by line, for Redis and Valkey.
Never reads a clock and never does I/O: the stores do (``limits.redis``,
``journal.permits``).

**A permit names its moment.** The MAIL command that it allows reaches the relay in
[moment, moment + validity). So a worker asks ahead of time, for many messages at
once, and each waits for its own moment.

**The promise.** N/period with burst b: any half-open window of length ``period``
holds at most N + b - 1 uses. Uses in [t, t + period) have their moments in the open
interval (t - validity, t + period), of length W = period + validity; so no open
interval of length W may hold more moments. Two rules see to it (``Pace``):

* *Slots* (GCRA). Each moment m owns a slot [v, v + interval) with
  m <= v <= m + tolerance, and slots do not overlap. The moments of an open interval
  of length W own slots that begin in one of length W + tolerance, so there are at
  most ceil((W + tolerance) / interval) of them.
* *Counting*, where that number is above the promise: moment i + cap lies at least W
  after moment i.

**Why tolerance without a burst.** With rigid spacing, permits for one relay at
33 ms leave gaps that another relay's 20 ms under the same global limit cannot use,
and two relays of 30/s share 30/s of a global 50/s. With one interval of tolerance
the gaps can be used; counting then keeps N. From ``COUNTED`` on, that tolerance is
cheap enough to be paid from the rate itself and nothing is counted.

**Gaps.** A moment far ahead (its message waits for a slow limit) must not cost a
shared limit the time before it: moments with a usable gap before them are kept
(``State.ahead``), and later asks are fitted in between.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol

from mailgate.config.terms import Rate
from mailgate.model.value import Value

#: A permit is valid for this share of its limit's period, and no longer than so many seconds.
#: It is what a limit loses: 1.5%.
SHARE = 0.015
LONGEST_VALIDITY = 0.25
#: MAIL leaves us so long before the validity ends: the network's and the relay's part (seconds).
ON_THE_WAY = 0.005
#: How far ahead workers ask (seconds): a take's worth of paced work.
HORIZON = 0.4
#: No moment lies further ahead than this (seconds); what a store forgot is over after it.
MAX_HORIZON = 1.0
#: From this limit on, the tolerance is paid from the rate: 0.35% of it.
COUNTED = 400
_SLACK = 0.0035
#: Moments with gaps before them that a limit remembers; more gaps are given up.
MAX_AHEAD = 64


class Ask(Value, frozen=True):
    """One message's limits by name; all admit it together, or none. No limits: always."""

    keys: tuple[tuple[str, Rate], ...]


class Grant(Value, frozen=True):
    """Send MAIL in [opens, closes], else ask again. On this process's ``time.monotonic()``."""

    opens: float
    closes: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing was charged. Ask again after ``wait`` seconds; ``key`` is the tightest limit."""

    wait: float
    key: str


class LimiterAway(Exception):
    """The permits' store cannot be reached: nothing may be sent until it answers."""


class Limiter(Protocol):
    """A store of permits. One process may share one between tasks."""

    async def reserve(self, asks: Sequence[Ask], horizon: float) -> list[Grant | Refusal]:
        """One answer for each ask, in order: the earliest moment within ``horizon`` seconds.

        Earlier asks come first. The horizon counts from the reply and is cut so that
        no moment is further than ``MAX_HORIZON`` away. Raises ``LimiterAway``.
        """
        ...

    async def peek(self, keys: Sequence[tuple[str, Rate]]) -> dict[str, float]:
        """Seconds until each limit by itself would next admit; charges nothing."""
        ...

    async def close(self) -> None: ...


class Pace(NamedTuple):
    """A rate in the terms of the algorithm (microseconds)."""

    interval: int
    tolerance: int
    window: int
    cap: int  # moments in any open ``window``; 0: the slots alone see to it


def validity(rate: Rate) -> float:
    """Seconds from the moment of a permit within which it is used, or not at all."""
    return min(SHARE * rate.period, LONGEST_VALIDITY)


@lru_cache(maxsize=4096)
def pace(rate: Rate) -> Pace:
    window = _up((rate.period + validity(rate)) * 1e6)
    even = -(-window // rate.limit)
    if rate.burst > 1:
        return Pace(even, (rate.burst - 1) * even, window, 0)
    if rate.limit < COUNTED:
        return Pace(even, even, window, rate.limit)
    slack = _up(rate.period * _SLACK * 1e6)
    return Pace(-(-(window + slack) // rate.limit), slack, window, 0)


def interval(rate: Rate) -> int:
    """Microseconds from one permit to the next while a limit is used to the full."""
    return pace(rate).interval


def most(rate: Rate) -> int:
    """What any half-open window of the rate's period may hold."""
    return rate.limit + rate.burst - 1


def _up(microseconds: float) -> int:
    return -int(-round(microseconds, 3) // 1)


@dataclass(slots=True)
class State:
    """What a limit remembers; a new one is idle."""

    #: End of the last slot of the moments that are not in ``ahead``.
    tat: int = 0
    #: Given moments with a usable gap before them, ascending.
    ahead: list[int] = field(default_factory=list)
    #: For counted paces: the other moments of the last window, ascending, before ``ahead``.
    behind: list[int] = field(default_factory=list)


class Verdict(NamedTuple):
    """The moment of an ask; ``refused_by`` names the tightest limit when it is too far."""

    moment: int
    refused_by: str | None


class _Book:
    """One limit while a batch is admitted: its state and the slots' ends along ``ahead``."""

    __slots__ = ("ahead", "behind", "changed", "pace", "tats")

    def __init__(self, state: State, pace: Pace, now: int) -> None:
        self.pace, self.changed = pace, False
        self.ahead, self.behind, self.tats = list(state.ahead), list(state.behind), [state.tat]
        reach = now + int(MAX_HORIZON * 1e6)
        last = self.ahead[-1] if self.ahead else 0
        if last > reach or state.tat - pace.tolerance - pace.window > reach:
            # Nothing can be given so far ahead: the clock was set back. What was given
            # is used up by ``reach``; begin anew one window later.
            self.ahead, self.behind = [], []
            self.tats, self.changed = [reach + pace.window + pace.tolerance], True
        over = bisect_right(self.behind, now - pace.window)
        del self.behind[:over]
        self._settle(now)

    def state(self) -> State:
        return State(self.tats[0], self.ahead, self.behind)

    def earliest(self, start: int) -> int:
        """The least moment from ``start`` on that breaks neither rule."""
        x = start
        k = bisect_right(self.ahead, x)
        while True:
            x = self._after(k, x)
            if k == len(self.ahead) or (x <= self.ahead[k] and self._fits(k, x)):
                return x
            # A later moment in the same gap fits no better: try the next gap.
            x = max(x, self.ahead[k])
            k += 1

    def give(self, moment: int) -> None:
        k = bisect_right(self.ahead, moment)
        self.ahead.insert(k, moment)
        self._lay(k)
        self.changed = True

    def _lay(self, k: int) -> None:
        """The ends of the slots from ``ahead[k]`` on."""
        del self.tats[k + 1 :]
        tat = self.tats[k]
        for moment in self.ahead[k:]:
            tat = max(tat, moment) + self.pace.interval
            self.tats.append(tat)

    def _settle(self, now: int) -> None:
        """Move the moments that nothing can be fitted before out of ``ahead``."""
        self._lay(0)
        n = 0
        while n < len(self.ahead):
            moment = self.ahead[n]
            if moment > now and len(self.ahead) - n <= MAX_AHEAD:
                x = self._after(n, now)
                if x <= moment and self._fits(n, x):
                    break
            n += 1
        if n:
            if self.pace.cap:
                self.behind += self.ahead[:n]
            del self.ahead[:n]
            del self.tats[:n]

    def _given(self, i: int) -> int:
        behind = len(self.behind)
        return self.behind[i] if i < behind else self.ahead[i - behind]

    def _after(self, k: int, x: int) -> int:
        """The least moment from ``x`` on that those before ``ahead[k]`` allow."""
        x = max(x, self.tats[k] - self.pace.tolerance)
        if k == 0 and self.behind:
            x = max(x, self.behind[-1])
        i = len(self.behind) + k - self.pace.cap
        if self.pace.cap and i >= 0:
            x = max(x, self._given(i) + self.pace.window)
        return x

    def _fits(self, k: int, x: int) -> bool:
        """Whether ``ahead[k:]`` still obey with ``x`` before them."""
        interval, tolerance, window, cap = self.pace
        tat = max(self.tats[k], x) + interval
        place = len(self.behind) + k
        for j in range(k, len(self.ahead)):
            moment = self.ahead[j]
            if moment < tat - tolerance:
                return False
            if cap:
                i = len(self.behind) + j + 1 - cap
                if i >= 0:
                    other = x if i == place else self._given(i if i < place else i - 1)
                    if moment - other < window:
                        return False
            tat = max(tat, moment) + interval
            if not cap and tat == self.tats[j + 1]:
                return True
        return True


def admit(
    states: MutableMapping[str, State],
    asks: Sequence[Ask],
    *,
    now: int,
    lead: int = 0,
    horizon: int,
    since: int = 0,
) -> tuple[list[Verdict], Mapping[str, State]]:
    """Give each ask its moment, in order; and the states that changed, which replace the old.

    ``now``, and all times, in microseconds. No moment is before ``now + lead`` (when the
    reply will be there); one later than ``now + lead + horizon`` is refused and charges
    nothing; a negative horizon refuses all. ``since``: when the store's memory begins;
    what it gave before is unknown, so a limit without a state waits until that is over.
    """
    lead, horizon = reach(lead, horizon)
    books: dict[str, _Book] = {}
    said: dict[tuple[tuple[str, Rate], ...], Verdict] = {}
    verdicts = []
    for ask in asks:
        # Moments of equal asks only grow within a batch.
        before = said.get(ask.keys)
        if before is not None and before.refused_by is not None:
            verdicts.append(before)
            continue
        for key, rate in ask.keys:
            if key not in books:
                p = pace(rate)
                books[key] = _Book(states.get(key) or _unknown(p, since), p, now)
        start = now + lead
        moment, tightest = before.moment if before else start, ""
        settled = False
        while not settled:
            settled = True
            for key, _ in ask.keys:
                x = books[key].earliest(moment)
                if x > moment:
                    moment, tightest, settled = x, key, False
        refused = bool(ask.keys) and moment - start > horizon
        if not refused:
            for key, _ in ask.keys:
                books[key].give(moment)
        verdict = Verdict(moment, (tightest or ask.keys[0][0]) if refused else None)
        said[ask.keys] = verdict
        verdicts.append(verdict)
    changed = {key: book.state() for key, book in books.items() if book.changed}
    states.update(changed)
    return verdicts, changed


def _unknown(pace: Pace, since: int) -> State:
    """A limit without a state, in a memory that begins at ``since``."""
    after = int(MAX_HORIZON * 1e6) + pace.window + pace.tolerance
    return State(since + after) if since else State()


def reach(lead: int, horizon: int) -> tuple[int, int]:
    """Lead and horizon (microseconds), cut so that both end within ``MAX_HORIZON``."""
    most_ahead = int(MAX_HORIZON * 1e6)
    lead = max(0, min(lead, most_ahead // 2))
    return lead, min(horizon, most_ahead - lead)
