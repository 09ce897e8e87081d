"""How long no new connection to a relay is tried after one could not be set up.

Owns the wait and the answer given meanwhile. Time and randomness come in; pure
otherwise. One relay, one process, and seconds: what fails again and again is left alone
by the breaker that all processes share (``limits.breaker``), whose probe must not find
this door shut as well.
"""

from __future__ import annotations

from collections.abc import Callable

from mailgate.model.outcome import Outcome, Reply, untouched
from mailgate.model.state import Phase

#: The first wait and the longest, in seconds; it doubles in between.
FIRST_WAIT = 1.0
LONGEST_WAIT = 4.0
_JITTER = 0.2


class SetupBackoff:
    """``failures`` are set-ups that failed in a row, ``last`` is the latest of them."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.failures = 0
        self.last: Outcome | None = None
        self._random = random
        self._retry_at = 0.0

    def jitter(self) -> float:
        """A factor within ±20%, so that what began together does not end together."""
        return 1 - _JITTER + 2 * _JITTER * self._random()

    def succeeded(self) -> None:
        self.failures, self.last, self._retry_at = 0, None, 0.0

    def failed(self, outcome: Outcome, now: float) -> None:
        """Begin the next wait; attempts that were under way together count once."""
        self.last = outcome
        if now < self._retry_at:
            return
        self.failures += 1
        wait = min(FIRST_WAIT * 2.0 ** min(self.failures - 1, 16), LONGEST_WAIT)
        asked = min(outcome.retry_after or 0.0, LONGEST_WAIT)
        self._retry_at = now + max(wait, asked) * self.jitter()

    def left(self, now: float) -> float:
        """Seconds until a connection may be tried again."""
        return max(0.0, self._retry_at - now)

    def blocks(self, now: float, trying: int) -> bool:
        """Whether none may be tried now, ``trying`` being under way.

        After a failure, one at a time finds out whether it is better.
        """
        return now < self._retry_at or (self.failures > 0 and trying > 0)

    def answer(self, now: float) -> Outcome:
        """What a message is told meanwhile: nothing was said, come back then."""
        last = self.last
        phase, reply = (last.phase, last.reply) if last else (Phase.CONNECT, Reply(0, ""))
        # While a connection is being tried there is no time to name: a little later.
        return untouched(phase, reply, "relay_backing_off", retry_after=max(self.left(now), 0.1))
