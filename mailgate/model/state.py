"""The states of a recipient and the only moves between them.

Owns the transition table. Never knows SQL: the journal applies a move only
from the expected state, with the fencing token of the claim.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    QUEUED = "queued"
    GATHERING = "gathering"
    SENDING = "sending"
    DEFERRED = "deferred"
    SENT = "sent"
    BOUNCED = "bounced"
    FAILED = "failed"
    UNCERTAIN = "uncertain"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    THROTTLED = "throttled"
    DIGESTED = "digested"
    CANCELLED = "cancelled"
    HELD = "held"
    CAPTURED = "captured"


#: The states that wait to be taken.
WAITING = frozenset({State.QUEUED, State.DEFERRED})

#: What an operator can send again.
RESENDABLE = frozenset(
    {
        State.HELD,
        State.UNCERTAIN,
        State.BOUNCED,
        State.FAILED,
        State.EXPIRED,
        State.SUPPRESSED,
        State.CAPTURED,
    }
)

#: Nothing more happens to these by itself.
FINAL = frozenset(
    {
        State.SENT,
        State.BOUNCED,
        State.FAILED,
        State.EXPIRED,
        State.SUPPRESSED,
        State.THROTTLED,
        State.DIGESTED,
        State.CANCELLED,
        State.CAPTURED,
    }
)

_OUT_OF_WAITING = frozenset(
    {
        State.GATHERING,
        State.EXPIRED,
        State.SUPPRESSED,
        State.THROTTLED,
        State.DIGESTED,
        State.CANCELLED,
        State.HELD,
        # The journal was restored: it may have been sent since the backup.
        State.UNCERTAIN,
    }
)

#: from -> to. A pair that is not here is a bug, whoever asks for it.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.SENDING, State.QUEUED}) | _OUT_OF_WAITING,
    State.DEFERRED: frozenset({State.SENDING, State.QUEUED}) | _OUT_OF_WAITING,
    # By itself it is not sent again, nor taken: only its digest, or an end, leads out.
    State.GATHERING: frozenset(
        {State.DIGESTED, State.EXPIRED, State.SUPPRESSED, State.CANCELLED, State.UNCERTAIN}
    ),
    State.SENDING: frozenset(
        {
            State.QUEUED,
            State.SENT,
            State.DEFERRED,
            State.BOUNCED,
            State.FAILED,
            State.UNCERTAIN,
            State.EXPIRED,
            State.HELD,
            State.CAPTURED,
        }
    ),
    State.UNCERTAIN: frozenset({State.QUEUED, State.SENT}),
    State.HELD: frozenset({State.QUEUED, State.CANCELLED, State.EXPIRED, State.UNCERTAIN}),
    State.BOUNCED: frozenset({State.QUEUED}),
    State.FAILED: frozenset({State.QUEUED}),
    State.EXPIRED: frozenset({State.QUEUED}),
    State.SUPPRESSED: frozenset({State.QUEUED}),
    State.SENT: frozenset(),
    State.THROTTLED: frozenset(),
    State.DIGESTED: frozenset(),
    State.CANCELLED: frozenset(),
    State.CAPTURED: frozenset({State.QUEUED}),
}


def allowed(source: State, target: State) -> bool:
    """Whether a recipient may move from ``source`` to ``target``."""
    return target in TRANSITIONS[source]


class Phase(StrEnum):
    """How far a conversation had come when it ended."""

    RENDER = "render"
    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    #: The message's bytes are going out; its last line has not.
    BODY = "body"
    #: The final dot has been handed to the kernel: from here a lost reply is uncertain.
    DOT = "dot"


#: The ring for a mail comes at most so long (seconds) before that can be read.
RING_AHEAD = 0.006


class Lane(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    BULK = "bulk"
