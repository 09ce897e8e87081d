"""Recipients that play a part: for producers' own tests, on any gateway, without a relay.

Owns their domain and what happens to the mail of each. Pure. An address of theirs is
never suppressed and its outcomes say nothing about a relay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mailgate.model import outcome as outcomes
from mailgate.model.outcome import Outcome, Reply, Scope, Suppress
from mailgate.model.state import Phase
from mailgate.model.value import replace
from mailgate.smtp.classify import classify

#: No such domain can exist (RFC 6761 section 6.2).
DOMAIN = "simulate.mailgate.test"
NOTE = "simulated: no relay was touched"
#: How long a slow one takes (seconds).
SLOW = 2.0


@dataclass(frozen=True, slots=True)
class Part:
    """The outcomes of the attempts in turn, the last one for all that follow."""

    says: str
    acts: tuple[Outcome, ...]
    seconds: float = 0.0


def _aside(outcome: Outcome, retry_after: float | None = None) -> Outcome:
    return replace(
        outcome,
        scope=Scope.RECIPIENT,
        suppress=Suppress.NEVER,
        aside=True,
        note=NOTE,
        # The stream's schedule is what a test wants to see, and no real relay's wait.
        retry_after=retry_after,
    )


def _refused(phase: Phase, code: int, enhanced: str, text: str) -> Outcome:
    return _aside(classify(phase, Reply(code, f"{enhanced} {text} (simulated)", enhanced)))


_SENT = _aside(outcomes.sent(Reply(250, "2.0.0 Ok (simulated)", "2.0.0")))
_LATER = _refused(Phase.RCPT, 451, "4.3.0", "Try again later")

#: By the part of the address before the @ and any +.
PARTS: Mapping[str, Part] = {
    "sent": Part("is sent", (_SENT,)),
    "slow": Part(f"is sent after {SLOW:g} seconds", (_SENT,), SLOW),
    "defer": Part("is deferred once, then sent", (_LATER, _SENT)),
    "defer-twice": Part("is deferred twice, then sent", (_LATER, _LATER, _SENT)),
    "full": Part(
        "is deferred (`mailbox_full`) until the stream's schedule gives up",
        (_refused(Phase.RCPT, 452, "4.2.2", "Mailbox full"),),
    ),
    "bounce": Part(
        "bounces (`unknown_address`)",
        (_refused(Phase.RCPT, 550, "5.1.1", "No such user here"),),
    ),
    "fail": Part(
        "fails (`content_refused`), the address not being to blame",
        (_refused(Phase.DOT, 554, "5.6.0", "Malformed message"),),
    ),
    "uncertain": Part(
        "is uncertain; tried again, whether by policy or by an operator, it is sent",
        (_aside(outcomes.uncertain("no answer came after the dot (simulated)")), _SENT),
    ),
}

_UNKNOWN = _refused(
    Phase.RCPT, 550, "5.1.1", f"No such part; there are: {', '.join(f'{p}@' for p in PARTS)}"
)


def play(email: str, attempts: int) -> tuple[Outcome, float] | None:
    """What happens to a mail for ``email`` after so many attempts, and the seconds it takes.

    None for everybody else's address. What follows a ``+`` tells tests apart.
    """
    local, _, domain = email.rpartition("@")
    if domain != DOMAIN:
        return None
    part = PARTS.get(local.partition("+")[0].lower())
    if part is None:
        return _UNKNOWN, 0.0
    return part.acts[min(attempts, len(part.acts) - 1)], part.seconds
