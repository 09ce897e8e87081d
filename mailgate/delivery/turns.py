"""What a turn at the journal writes and what it leaves: values between take and settle.

Owns the outcome that waits to be written, and small pure decisions about turns.
Never touches the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mailgate.delivery.room import Hold
from mailgate.dispatch.take import Take
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.leases import Orphan
from mailgate.journal.settling import Settlement
from mailgate.model.message import Claim
from mailgate.model.outcome import Kind, Outcome
from mailgate.model.state import WAITING, State
from mailgate.model.value import Value, replace


class Ended(Value, frozen=True):
    """An outcome that waits to be written."""

    settlement: Settlement
    kind: Kind
    slot: int
    claim: Claim
    outcome: Outcome
    duration_ms: int
    #: Of the bytes that the settlement carries.
    hold: Hold | None = None


def moved_on(take: Take, batch: Sequence[Ended], now: int) -> bool:
    """Whether a turn that claimed nothing left something due behind it all the same.

    It ended, put off or put aside what stood in front, or settled what is due again at once (a
    failover).
    """
    turn = take.turn
    return bool(turn.expired or turn.suppressed or turn.waiting or turn.aside) or any(
        e.settlement.path[-1] in WAITING and e.settlement.due_at <= now for e in batch
    )


def unjudged(claim: Claim, outcome: Outcome, past_dot: bool, now: int) -> Settlement:
    """Where a recipient goes when judging its outcome failed: what was sent is sent.

    What may have been sent is uncertain, and for anything else an operator decides.
    """
    unsure = State.UNCERTAIN if past_dot else State.HELD
    rests = State.SENT if outcome.kind is Kind.SENT else unsure
    return Settlement(
        recipient_id=claim.recipient_id,
        message_id=claim.message_id,
        token=claim.token,
        path=(rests,),
        due_at=now,
        error_class="" if rests is State.SENT else "internal_error",
        sensitive=claim.sensitive,
        note="what follows from the outcome could not be judged or written: see the log",
    )


def unwritten(ended: Ended, now: int) -> Ended:
    """The same outcome with the least to write of it, when its settlement could not be written."""
    past_dot = ended.kind is Kind.UNCERTAIN
    return replace(ended, settlement=unjudged(ended.claim, ended.outcome, past_dot, now))


def given_back(strays: Iterable[Orphan], now: int) -> list[Settlement]:
    """What becomes of rows that a transaction of unknown end claimed: nobody sent them."""
    return [
        Settlement(
            recipient_id=o.recipient_id,
            message_id=o.message_id,
            token=o.token,
            path=(State.QUEUED,),
            due_at=now,
            suspect=o.suspect,
            note="claimed by a transaction whose end was not known: not sent",
        )
        for o in strays
    ]


def routed(bucket: BucketKey, relay: str) -> BucketKey:
    """The bucket's route from the relay on that was really used."""
    if relay not in bucket.route:
        return BucketKey(bucket.lane, bucket.producer, (relay,), bucket.domain)
    at = bucket.route.index(relay)
    route = bucket.route[at:] + bucket.route[:at]
    return BucketKey(bucket.lane, bucket.producer, route, bucket.domain)
