"""What is told of settled recipients: a line in the log, and the numbers of the process.

Owns what each says of an outcome. Called with a whole batch once it is written; never
decides anything, and never says more of an address than its domain.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mailgate import log
from mailgate.delivery.turns import Ended
from mailgate.journal.breakers import Change
from mailgate.limits.breaker import Kind
from mailgate.metrics import families
from mailgate.metrics.destinations import destination
from mailgate.metrics.tally import Tally
from mailgate.model.ids import spell
from mailgate.model.state import State
from mailgate.tracing.spans import Tracing

_log = logging.getLogger("mailgate.gateway")


class Report:
    """``now`` is the journal's clock (ms)."""

    def __init__(
        self, tally: Tally, now: Callable[[], int], tracing: Tracing | None = None
    ) -> None:
        self._tally = tally
        self._now = now
        self._tracing = tracing

    def __call__(self, batch: Sequence[Ended]) -> None:
        log.dispositions([_disposition(ended) for ended in batch])
        now = self._now()
        for ended in batch:
            self._count(ended, now)
            if self._tracing is not None and ended.claim.traceparent:
                _trace(self._tracing, ended.claim.traceparent, ended)

    def _count(self, ended: Ended, now: int) -> None:
        claim, state = ended.claim, ended.settlement.path[0]
        tally = self._tally
        where = destination(claim.address.email)
        tally.add(families.SETTLED, (state.value, ended.outcome.error_class, claim.relay, where))
        tally.observe(families.CONVERSATION, (claim.relay,), ended.duration_ms / 1000)
        if state is State.SENT:
            age = max(0, now - claim.accepted_at) / 1000
            tally.observe(families.SENT_AFTER, (claim.lane.value,), age)


def tell(changes: Sequence[Change]) -> None:
    """One line when a breaker opens, is probed in vain, closes, or mail is slowed."""
    for change in changes:
        kind, relay, name = change.subject
        record = change.after
        said = {
            "breaker": kind.value,
            "relay": relay,
            # An address is masked by the log; a relay has no name besides.
            **({"domain": name} if kind is Kind.DOMAIN else {}),
            **({"sender": name} if kind is Kind.SENDER else {}),
            "error_class": record.error_class,
            "code": record.code,
        }
        said["wait_s"] = max(0, record.until - record.failed_at) // 1000 if record.open else 0
        if change.opened:
            level = logging.ERROR if record.login or kind is Kind.SENDER else logging.WARNING
            what = "no mail goes there for a while"
            if record.login:
                what = "the relay refuses our login: no mail goes there, an operator is needed"
            elif kind is Kind.SENDER:
                what = "the relay does not let us use this sender: an operator is needed"
            _log.log(level, what, extra=said)
        elif change.closed:
            _log.info("mail goes there again", extra=said)
        elif record.open and record.until > change.before.until:
            _log.info("a probe found it no better", extra=said)
        elif change.slowed:
            said["per_minute"] = int(record.pace)
            _log.warning("mail to there is slowed: it was refused as too fast", extra=said)


def _trace(tracing: Tracing, traceparent: str, ended: Ended) -> None:
    attempt, claim = ended.settlement.attempt, ended.claim
    if attempt is None:
        return
    tracing.attempt(
        traceparent,
        {
            "message_id": spell(claim.message_id),
            "recipient_id": spell(claim.recipient_id),
            "producer": claim.producer,
            "stream": claim.stream,
            "relay": attempt.relay,
            "attempt": claim.attempts + 1,
            "state": ended.settlement.path[0].value,
            "phase": attempt.phase,
            "code": attempt.code,
            "error_class": attempt.error_class,
        },
        failed=ended.settlement.path[0] is not State.SENT,
        at=(attempt.started_at * 1_000_000, attempt.ended_at * 1_000_000),
    )


def _disposition(ended: Ended) -> log.Disposition:
    claim, attempt = ended.claim, ended.settlement.attempt
    return log.Disposition(
        ended.settlement.path[0].value,
        message_id=spell(claim.message_id),
        recipient_id=spell(claim.recipient_id),
        producer=claim.producer,
        stream=claim.stream,
        relay=attempt.relay if attempt else claim.relay,
        address=claim.address.email,
        attempts=claim.attempts + (1 if attempt else 0),
        duration_ms=ended.duration_ms,
        error_class=ended.outcome.error_class,
        code=ended.outcome.reply.code,
    )
