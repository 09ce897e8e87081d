"""What follows from an outcome: the next state, and when.

Owns the retry schedule, failover and the policy for uncertain outcomes, as
pure functions of claim, outcome, configuration, time and randomness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mailgate.config.streams import Backoff, Stream
from mailgate.config.suppressions import Suppressions
from mailgate.delivery.blame import blamed
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.settling import Attempt, Settlement
from mailgate.model.message import Claim
from mailgate.model.outcome import Kind, Outcome, Scope, Suppress
from mailgate.model.state import Phase, State
from mailgate.model.value import replace

#: An untouched recipient asks again after this (seconds) when the relay named no time.
UNTOUCHED_WAIT = 5.0
#: And after this when it was us: by the next heartbeat we send again, or others do.
OURS_WAIT = 1.0
#: A relay's reply is kept up to this many characters.
REPLY_CAP = 2000


#: What one relay cannot take and another may (RFC 1870, 6531, 6152).
_MISFITS = frozenset({"too_large", "smtputf8_not_offered", "8bitmime_not_offered"})
#: Conversations that we ended ourselves: the relay is not to blame.
_OURS = frozenset({"lease_lost", "shutting_down"})


def backoff_wait(schedule: Backoff, attempt: int, random: Callable[[], float]) -> float:
    """Seconds to wait after the ``attempt``-th attempt (1 is the first), with jitter."""
    # The exponent is capped before the power is taken: attempts may be many.
    wait = schedule.first
    for _ in range(min(attempt - 1, 64)):
        wait = min(wait * schedule.factor, schedule.cap)
    return min(wait, schedule.cap) * (1 + schedule.jitter * (2 * random() - 1))


def next_route(
    current: Sequence[str], preferred: Sequence[str], *, drop: bool = False
) -> tuple[str, ...] | None:
    """The route that begins with the next relay, or None when all have had their turn.

    With ``drop`` it is without the one that just had it, which will never take this
    message: whoever is left behind the first had a failure of its own.
    """
    if not current or current[0] not in preferred:
        return None
    at = list(preferred).index(current[0])
    following = preferred[at + 1 :]
    if not following:
        return None
    done = preferred[: at if drop else at + 1]
    return (*following, *(relay for relay in done if relay in current))


_NO_BLAME = Suppressions(bounces=False)


def settle(
    claim: Claim,
    outcome: Outcome,
    *,
    stream: Stream,
    bucket: BucketKey,
    preferred: Sequence[str],
    started_at: int,
    now: int,
    random: Callable[[], float],
    content: bytes | None = None,
    suppressions: Suppressions = _NO_BLAME,
) -> Settlement:
    """Where the recipient goes after ``outcome``.

    ``bucket`` is where it was taken from, ``preferred`` the stream's relays in
    order, ``content`` the rendered bytes, kept when this attempt does not end
    the matter, ``suppressions`` what is held against an address. Times are
    milliseconds.
    """
    attempt = _attempt(claim, outcome, started_at, now) if outcome.counts else None
    path: tuple[State, ...]
    due = now
    moved: BucketKey | None = None
    note = outcome.note
    error_class = outcome.error_class
    match outcome.kind:
        case Kind.SENT:
            path = (State.SENT,)
        case Kind.CAPTURED:
            path = (State.CAPTURED,)
        case Kind.BOUNCE:
            path = (State.BOUNCED,)
        case Kind.FAIL if not _may_fit_elsewhere(outcome, bucket, preferred):
            path = (State.FAILED,)
        case Kind.HOLD:
            path, note = (State.HELD,), outcome.reply.text
        case Kind.UNCERTAIN if stream.uncertain == "hold":
            path = (State.UNCERTAIN,)
        case Kind.UNCERTAIN:
            due = now + _ms(backoff_wait(stream.retry, claim.attempts + 1, random))
            over = _over(claim, stream, due)
            path = (State.UNCERTAIN,) if over else (State.UNCERTAIN, State.QUEUED)
        case Kind.UNTOUCHED | Kind.DEFER | Kind.FAIL:
            if outcome.kind is Kind.FAIL and not outcome.reply.code:
                # Seen without a word to the relay: a look, not an attempt.
                attempt, content = None, None
            waiting = State.DEFERRED if attempt else State.QUEUED
            route = _failover(outcome, bucket, preferred)
            if route is not None:
                moved = replace(bucket, route=route)
            else:
                due = now + _ms(_wait(claim, outcome, stream, random))
                if bucket.route != tuple(preferred) and preferred:
                    # Every relay had its turn: begin with the first again.
                    moved = replace(bucket, route=tuple(preferred))
            over = _over(claim, stream, due)
            if outcome.kind is Kind.FAIL:
                note = f"{claim.relay}: {outcome.reply}"[:REPLY_CAP]
            note = _WHY[over] if over else note
            if over is State.FAILED and outcome.suppress is not Suppress.NEVER:
                # The address failed to the end, not we: a mailbox that stayed full.
                over = State.BOUNCED
            path = (over or waiting,)
    rests = path[-1]
    bounced = rests is State.BOUNCED
    return Settlement(
        recipient_id=claim.recipient_id,
        message_id=claim.message_id,
        token=claim.token,
        path=path,
        due_at=due,
        attempt=attempt,
        error_class=error_class,
        bucket=moved if rests in (State.QUEUED, State.DEFERRED) else None,
        stored=content if content and outcome.counts and rests is not State.SENT else None,
        sensitive=claim.sensitive,
        note=note,
        blame=blamed(claim, outcome, suppressions, now) if bounced else None,
        took=claim.address.folded if rests is State.SENT and not outcome.aside else "",
    )


_WHY = {
    State.EXPIRED: "expires before the next attempt",
    State.FAILED: "gave up: older than the stream's retry.give_up",
}


def _wait(claim: Claim, outcome: Outcome, stream: Stream, random: Callable[[], float]) -> float:
    if outcome.kind is Kind.UNTOUCHED:
        wait = OURS_WAIT if outcome.error_class in _OURS else UNTOUCHED_WAIT
        if outcome.retry_after is not None:
            wait = outcome.retry_after
        return max(0.05, wait) * (1 + 0.2 * random())
    wait = backoff_wait(stream.retry, claim.attempts + 1, random)
    if outcome.retry_after is not None:
        # The relay's own word counts, but never beyond the schedule's cap.
        wait = max(wait, min(outcome.retry_after, stream.retry.cap))
    return wait


def _failover(
    outcome: Outcome, bucket: BucketKey, preferred: Sequence[str]
) -> tuple[str, ...] | None:
    """The next route when the relay failed, and not the recipient; or is too small."""
    if outcome.kind is Kind.FAIL:
        return next_route(bucket.route, preferred, drop=True)
    if outcome.scope not in (Scope.RELAY, Scope.CONNECTION) or outcome.error_class in _OURS:
        return None
    return next_route(bucket.route, preferred)


def _may_fit_elsewhere(outcome: Outcome, bucket: BucketKey, preferred: Sequence[str]) -> bool:
    """Whether this relay cannot take the message, and another may: now, or when it is back.

    At RCPT a size is the mailbox's own limit, the same by every way.
    """
    if outcome.error_class not in _MISFITS or outcome.phase is Phase.RCPT:
        return False
    return next_route(bucket.route, preferred, drop=True) is not None or len(bucket.route) > 1


def _over(claim: Claim, stream: Stream, due: int) -> State | None:
    """How it ends when the next attempt would come too late; None when it would not."""
    if claim.expires_at is not None and due >= claim.expires_at:
        return State.EXPIRED
    if due - claim.letter.date > _ms(stream.retry.give_up):
        return State.FAILED
    return None


def _attempt(claim: Claim, outcome: Outcome, started_at: int, now: int) -> Attempt:
    reply = outcome.reply
    return Attempt(
        relay="simulator" if outcome.aside else claim.relay,
        started_at=started_at,
        ended_at=now,
        kind=outcome.kind.value,
        phase=outcome.phase.value,
        code=reply.code,
        enhanced=reply.enhanced,
        reply=reply.text[:REPLY_CAP].replace("\x00", "\\0"),
        error_class=outcome.error_class,
    )


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
