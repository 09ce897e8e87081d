"""What the ends of conversations tell the breakers, and how fast mail gets through now.

Owns the choice of what is worth writing down: while nothing fails a success costs two
counts in memory. Never writes: the signals go with the settlement.
"""

from __future__ import annotations

from collections import Counter

from mailgate.dispatch.flow import Flow
from mailgate.dispatch.gate import Gate
from mailgate.limits.breaker import Sign, Signal, Subject
from mailgate.limits.symptoms import signals
from mailgate.model.message import Claim
from mailgate.model.outcome import Kind, Outcome, Scope

#: Counts are of the current and the last span of so many seconds.
SPAN = 10.0
_HARMLESS = frozenset({Scope.RECIPIENT, Scope.MESSAGE})


class Witness:
    """``workers`` is how many processes there are, as far as is known: each sees its part.

    ``uneasy`` tells that something failed that others may have seen too: look again.
    """

    def __init__(self, gate: Gate, flow: Flow) -> None:
        self.workers = 1
        self.uneasy = False
        self._gate, self._flow = gate, flow
        self._pulse = Pulse()

    def showed(
        self, claim: Claim, outcome: Outcome, probes: tuple[Subject, ...], clock: float
    ) -> tuple[tuple[Subject, Signal], ...]:
        """What has to be told of a conversation that ended so; ``clock`` is monotonic.

        Successes only of what is known to fail; of a probe all that it was to find out.
        """
        domain = claim.address.domain
        pace = 0.0
        if outcome.reply.code or outcome.aside:
            self._flow.moved(claim.relay, domain, clock, aside=outcome.aside)
        if outcome.kind is not Kind.SENT and outcome.scope not in _HARMLESS:
            self.uneasy = True
        if outcome.kind is Kind.SENT and not outcome.aside:
            self._pulse.beat(claim.relay, domain, clock)
            if self._gate.quiet and not probes:
                return ()
        elif outcome.error_class == "rate_limited":
            part = domain if outcome.scope is Scope.DOMAIN else ""
            pace = self._pulse.pace(claim.relay, part, clock) * self.workers
        found = dict(signals(outcome, claim.relay, domain, claim.letter.sender.email, pace))
        told = {
            who: signal
            for who, signal in found.items()
            if signal.sign is not Sign.OK or who in probes or self._gate.tracked(who)
        }
        for who in probes:
            told.setdefault(who, Signal(Sign.NOTHING, wait=outcome.retry_after or 0.0))
        return tuple(told.items())


class Pulse:
    """Counts of the last moments by relay and destination; '' for the whole relay."""

    def __init__(self) -> None:
        self._now: Counter[tuple[str, str]] = Counter()
        self._last: Counter[tuple[str, str]] = Counter()
        self._since = 0.0

    def beat(self, relay: str, domain: str, clock: float) -> None:
        """One message got through."""
        self._turn(clock)
        self._now[relay, domain] += 1
        self._now[relay, ""] += 1

    def pace(self, relay: str, domain: str, clock: float) -> float:
        """Messages a minute; ``domain`` '' for the whole relay."""
        self._turn(clock)
        count = self._now[relay, domain] + self._last[relay, domain]
        return count * 60 / (clock - self._since + SPAN)

    def _turn(self, clock: float) -> None:
        if clock - self._since >= SPAN:
            old = clock - self._since >= 2 * SPAN
            self._last = Counter() if old else self._now
            self._now = Counter()
            self._since = clock
