"""What one conversation came to, as a value.

Owns the outcomes and their constructors, which make a wrong combination
impossible. Never decides what follows from one: ``delivery.retry`` does.
"""

from __future__ import annotations

from enum import StrEnum

from mailgate.model.state import Phase
from mailgate.model.value import Value


class Kind(StrEnum):
    SENT = "sent"
    #: Try again later; the conversation counts as an attempt.
    DEFER = "defer"
    #: The address does not take mail.
    BOUNCE = "bounce"
    #: The message cannot be delivered, and the address is not to blame.
    FAIL = "fail"
    #: The relay may or may not have taken it.
    UNCERTAIN = "uncertain"
    #: Nothing was said about this message to the relay; costs no attempt.
    UNTOUCHED = "untouched"
    #: Waits for an operator or an author.
    HOLD = "hold"
    #: Kept in by the sandbox.
    CAPTURED = "captured"


class Scope(StrEnum):
    """Whose fault a failure is; only site scopes feed breakers."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    CONNECTION = "connection"
    DOMAIN = "domain"
    RELAY = "relay"
    SENDER = "sender"


class Suppress(StrEnum):
    """Whether a failure keeps later mail from the address."""

    #: The address was not to blame, or nothing proves it.
    NEVER = "never"
    #: The address does not exist or takes no mail any more.
    NOW = "now"
    #: The address may be to blame: when it fails so again, days later.
    AGAIN = "again"


class Reply(Value, frozen=True):
    """An SMTP reply as it came: ``code`` 0 when the relay said nothing."""

    code: int
    text: str
    enhanced: str = ""

    def __str__(self) -> str:
        return f"{self.code} {self.text}" if self.code else self.text


class Outcome(Value, frozen=True):
    """How one recipient's attempt ended.

    ``error_class`` is the field's short word for the failure (``mailbox_full``,
    ``connect_failed``…), empty when sent. ``retry_after`` is the wait in seconds
    that the relay asked for, if it named one. ``note`` goes into the recipient's story.
    ``aside``: no relay was touched, so that this tells nothing about one.
    """

    kind: Kind
    phase: Phase
    reply: Reply
    error_class: str = ""
    scope: Scope = Scope.RECIPIENT
    suppress: Suppress = Suppress.NEVER
    retry_after: float | None = None
    note: str = ""
    aside: bool = False

    @property
    def counts(self) -> bool:
        """Whether this was an attempt: a conversation about the message was opened."""
        return self.kind not in (Kind.UNTOUCHED, Kind.HOLD, Kind.CAPTURED)


def sent(reply: Reply) -> Outcome:
    return Outcome(Kind.SENT, Phase.DOT, reply)


def deferred(
    phase: Phase,
    reply: Reply,
    error_class: str,
    scope: Scope = Scope.RECIPIENT,
    retry_after: float | None = None,
    suppress: Suppress = Suppress.NEVER,
) -> Outcome:
    """``suppress`` is for when it is given up: the last of the tries is the address's failure."""
    return Outcome(Kind.DEFER, phase, reply, error_class, scope, suppress, retry_after)


def bounced(phase: Phase, reply: Reply, error_class: str, *, suppress: Suppress) -> Outcome:
    return Outcome(Kind.BOUNCE, phase, reply, error_class, Scope.RECIPIENT, suppress)


def failed(phase: Phase, reply: Reply, error_class: str, scope: Scope = Scope.MESSAGE) -> Outcome:
    return Outcome(Kind.FAIL, phase, reply, error_class, scope)


def uncertain(reason: str, *, ours: str | None = None) -> Outcome:
    """The conversation ended after the dot and before the relay's answer (RFC 1047).

    ``ours`` is the error class where the relay is not to blame: we ended it ourselves.
    """
    scope = Scope.CONNECTION if ours is None else Scope.MESSAGE
    said = Reply(0, reason)
    return Outcome(Kind.UNCERTAIN, Phase.DOT, said, ours or "no_reply_after_dot", scope)


def untouched(
    phase: Phase,
    reply: Reply,
    error_class: str,
    scope: Scope = Scope.RELAY,
    retry_after: float | None = None,
) -> Outcome:
    """Nothing was said to the relay about this message (AUTH refused, shutdown…)."""
    return Outcome(Kind.UNTOUCHED, phase, reply, error_class, scope, retry_after=retry_after)


def captured(note: str) -> Outcome:
    """The sandbox let nobody have it; ``note`` is for the recipient's story."""
    return Outcome(
        Kind.CAPTURED, Phase.RENDER, Reply(0, ""), "", Scope.MESSAGE, note=note, aside=True
    )


def held(error_class: str, reason: str) -> Outcome:
    return Outcome(Kind.HOLD, Phase.RENDER, Reply(0, reason), error_class, Scope.MESSAGE)


class LeaseLost(Exception):
    """This process may no longer send: others may have taken over what it claimed."""
