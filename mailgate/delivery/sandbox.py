"""Mail that does not go where it says: captured, redirected, or to a simulated recipient.

Owns that decision, made when the bytes are there and before anything is said to a
relay. Pure. Never sends; whatever it does not know it keeps in.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailgate.config.sandbox import Sandbox
from mailgate.config.terms import receives
from mailgate.delivery import simulator
from mailgate.model import outcome as outcomes
from mailgate.model.message import Envelope
from mailgate.model.outcome import Outcome, Suppress
from mailgate.model.value import replace

CAPTURED = "captured by the sandbox: no relay was touched"
REDIRECTED = "redirected by the sandbox: another address got it"


@dataclass(frozen=True, slots=True)
class Aside:
    """How it ends without any relay, after so many seconds; ``shown`` in the sandbox's inbox."""

    outcome: Outcome
    seconds: float = 0.0
    shown: bool = False


def way(sandbox: Sandbox, envelope: Envelope, attempts: int) -> Envelope | Aside:
    """The envelope that goes to the relay, or how it ends without one.

    ``attempts`` counts the conversations before this one. A simulated recipient answers
    in every mode.
    """
    scene = simulator.play(envelope.rcpt_to, attempts)
    if scene is not None:
        return Aside(*scene)
    if sandbox.mode == "off" or receives(envelope.rcpt_to, sandbox.allow):
        return envelope
    if sandbox.mode == "redirect" and sandbox.redirect_to is not None:
        # Above the signature, which covers what the recipient was meant to see.
        original = envelope.rcpt_to.encode("ascii", "backslashreplace")
        content = b"X-Original-To: " + original + b"\r\n" + envelope.content
        return Envelope(envelope.mail_from, sandbox.redirect_to, content)
    return Aside(outcomes.captured(CAPTURED), shown=sandbox.inbox is not None)


def redirected(outcome: Outcome) -> Outcome:
    """What came of a redirected mail says nothing about its own recipient's address."""
    return replace(outcome, suppress=Suppress.NEVER, note=REDIRECTED)
