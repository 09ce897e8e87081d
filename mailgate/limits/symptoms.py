"""What an outcome shows about a relay, a destination and a sender.

Owns the reading of an outcome's scope as signals for breakers. Pure. Never counts:
``limits.breaker`` does.
"""

from __future__ import annotations

from mailgate.limits.breaker import AT_ONCE, Kind, Sign, Signal, Subject
from mailgate.model.outcome import Kind as Ending
from mailgate.model.outcome import Outcome, Scope
from mailgate.model.state import Phase

#: Ended by ourselves, or without asking the relay.
_OURS = frozenset({"lease_lost", "shutting_down", "stopped", "limit", "relay_backing_off"})
_LOGIN = frozenset({"auth_refused", "auth_required", "auth_unavailable", "auth_needs_tls"})
#: Of the link alone, and no sign of trouble.
_HARMLESS = frozenset({"too_many_recipients"})
_TALK = frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY, Phase.DOT})
#: From RCPT on, the relay speaks about the destination.
_THERE = _TALK - {Phase.MAIL}
#: So much of a reply is kept (characters).
REPLY = 300


def signals(
    outcome: Outcome, relay: str, domain: str, sender: str, pace: float = 0.0
) -> list[tuple[Subject, Signal]]:
    """What the end of a conversation shows, by subject; none where it shows nothing.

    ``pace`` is for throttling replies (``Signal.pace``).
    """
    if outcome.aside:
        return []
    site = Subject(Kind.RELAY, relay)
    there = Subject(Kind.DOMAIN, relay, domain)
    who = Subject(Kind.SENDER, relay, sender)
    fine = Signal(Sign.OK)
    if outcome.kind is Ending.SENT:
        return [(site, fine), (there, fine), (who, fine)]
    if outcome.error_class in _OURS or outcome.kind is Ending.HOLD:
        return []
    match outcome.scope:
        case Scope.RELAY:
            return [(site, _bad(outcome, pace))]
        case Scope.CONNECTION:
            return [] if outcome.error_class in _HARMLESS else [(site, _bad(outcome, pace))]
    if not outcome.reply.code or outcome.phase not in _TALK:
        return []
    match outcome.scope:
        case Scope.DOMAIN if _of_content(outcome):
            return [(site, fine)]
        case Scope.DOMAIN:
            return [(site, fine), (there, _bad(outcome, pace))]
        case Scope.SENDER:
            return [(site, fine), (who, _bad(outcome, pace))]
        case Scope.RECIPIENT if outcome.phase in _THERE:
            return [(site, fine), (there, fine)]
    return [(site, fine)]


def _of_content(outcome: Outcome) -> bool:
    """Refused for good once the content was known: others may well be taken there."""
    final = outcome.kind is Ending.FAIL and outcome.error_class != "rate_limited"
    return final and outcome.phase not in (Phase.MAIL, Phase.RCPT)


def _bad(outcome: Outcome, pace: float) -> Signal:
    wait = outcome.retry_after or 0.0
    if outcome.error_class in _LOGIN:
        sign = Sign.LOGIN
    elif outcome.error_class == "auth_temporary" or wait >= AT_ONCE:
        sign = Sign.STOP
    elif outcome.error_class == "rate_limited":
        sign = Sign.THROTTLE
    else:
        sign = Sign.FAIL
    reply = outcome.reply
    return Signal(
        sign, outcome.error_class, reply.code, reply.text[:REPLY].replace("\x00", ""), wait, pace
    )
