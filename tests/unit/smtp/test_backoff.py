"""The wait after a set-up that failed."""

from __future__ import annotations

from mailgate.model.outcome import Kind, Reply, Scope, deferred
from mailgate.model.state import Phase
from mailgate.smtp.backoff import FIRST_WAIT, LONGEST_WAIT, SetupBackoff

REFUSED = deferred(Phase.CONNECT, Reply(0, "refused"), "connect_failed", Scope.RELAY)


def test_the_wait_doubles_and_is_capped() -> None:
    backoff, now, waits = SetupBackoff(lambda: 0.5), 0.0, []
    for _ in range(10):
        backoff.failed(REFUSED, now)
        waits.append(backoff.left(now))
        now += waits[-1]
    assert waits[:3] == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT]
    assert waits[-1] == LONGEST_WAIT


def test_the_wait_is_jittered_by_a_fifth() -> None:
    lengths = []
    for draw in (0.0, 0.999999):
        backoff = SetupBackoff(lambda draw=draw: draw)  # type: ignore[misc]
        backoff.failed(REFUSED, 0.0)
        lengths.append(round(backoff.left(0.0), 3))
    assert lengths == [0.8, 1.2]


def test_failures_that_were_under_way_together_count_once() -> None:
    backoff = SetupBackoff(lambda: 0.5)
    for _ in range(20):
        backoff.failed(REFUSED, 0.1)
    assert backoff.failures == 1


def test_after_the_wait_one_may_try_and_success_ends_it() -> None:
    backoff = SetupBackoff(lambda: 0.5)
    assert not backoff.blocks(0.0, trying=5)
    backoff.failed(REFUSED, 0.0)
    assert backoff.blocks(0.5, trying=0)
    assert not backoff.blocks(1.0, trying=0)
    assert backoff.blocks(1.0, trying=1)
    backoff.succeeded()
    assert not backoff.blocks(1.0, trying=5)


def test_meanwhile_a_message_is_told_why_and_how_long() -> None:
    backoff = SetupBackoff(lambda: 0.5)
    backoff.failed(REFUSED, 10.0)
    outcome = backoff.answer(10.25)
    assert (outcome.kind, outcome.error_class) == (Kind.UNTOUCHED, "relay_backing_off")
    assert (outcome.phase, outcome.reply) == (REFUSED.phase, REFUSED.reply)
    assert outcome.retry_after == 0.75
    assert outcome.scope is Scope.RELAY


def test_a_relay_that_names_a_wait_gets_it_within_the_cap() -> None:
    for asked, given in ((3.0, 3.0), (9999.0, LONGEST_WAIT)):
        backoff = SetupBackoff(lambda: 0.5)
        backoff.failed(deferred(Phase.AUTH, Reply(454, ""), "x", Scope.RELAY, asked), 0.0)
        assert backoff.left(0.0) == given
