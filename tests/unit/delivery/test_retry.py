"""What follows from an outcome: next state, next time, next relay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.config.streams import Backoff, Stream
from mailgate.delivery.retry import (
    REPLY_CAP,
    UNTOUCHED_WAIT,
    backoff_wait,
    next_route,
    settle,
)
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.settling import Settlement
from mailgate.model import outcome as outcomes
from mailgate.model.address import Address
from mailgate.model.message import Claim, Letter
from mailgate.model.outcome import Outcome, Reply, Scope, Suppress
from mailgate.model.state import Lane, Phase, State
from mailgate.model.value import replace

NOW = 1_800_000_000_000
STREAM = Stream(retry=Backoff(first=60, factor=3, cap=3600, jitter=0.2, give_up=86400))
LATER = Reply(451, "4.7.1 later", "4.7.1")
GONE = Reply(550, "5.1.1 no such user", "5.1.1")
RELAYS = ("a", "b", "c")


def claim(**changes: Any) -> Claim:
    letter = Letter("<1@x.example>", NOW, "1", Address("s@x.example"), (Address("a@x.example"),))
    given_ = Claim(
        7, 3, 1, "p", "s", Lane.BULK, "a", letter.to[0], letter, "s@x.example", NOW, 0, 1
    )
    return replace(given_, **changes)


def after(outcome: Outcome, *, of: Claim | None = None, **changes: Any) -> Settlement:
    values: dict[str, Any] = {
        "stream": STREAM,
        "bucket": BucketKey(Lane.BULK, "p", RELAYS, "d.example"),
        "preferred": RELAYS,
        "started_at": NOW - 50,
        "now": NOW,
        "random": lambda: 0.5,
        "content": b"bytes",
    }
    return settle(of or claim(), outcome, **{**values, **changes})


def deferred(scope: Scope = Scope.RECIPIENT, retry_after: float | None = None) -> Outcome:
    return outcomes.deferred(Phase.RCPT, LATER, "greylisted", scope, retry_after)


# --- the schedule -------------------------------------------------------------------


def test_waits_grow_by_the_factor_up_to_the_cap() -> None:
    waits = [backoff_wait(STREAM.retry, n, lambda: 0.5) for n in range(1, 8)]
    assert waits == [60, 180, 540, 1620, 3600, 3600, 3600]


@pytest.mark.parametrize(
    ("preset", "waits", "age"),
    [
        ("transactional", [60, 180, 540, 1620, 4860, 14400, 14400], 72 * 3600),
        ("codes", [10, 25, 62.5, 120, 120], 600),
        ("bulk", [900, 1800, 3600, 7200, 14400, 14400], 72 * 3600),
    ],
)
def test_the_presets_are_what_the_guide_says(preset: str, waits: list[float], age: float) -> None:
    schedule = Backoff.model_validate(preset)
    assert [backoff_wait(schedule, n + 1, lambda: 0.5) for n in range(len(waits))] == waits
    assert (schedule.give_up, schedule.jitter) == (age, 0.2)


BACKOFFS = st.builds(
    Backoff,
    first=st.floats(0, 1e4),
    factor=st.floats(1, 1e3),
    cap=st.floats(0, 1e6),
    jitter=st.floats(0, 0.9),
)


@given(BACKOFFS, st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_negative_nor_beyond_the_cap_and_its_jitter(
    schedule: Backoff, attempt: int, chance: float
) -> None:
    wait = backoff_wait(schedule, attempt, lambda: chance)
    middle = backoff_wait(schedule, attempt, lambda: 0.5)
    assert 0 <= wait <= schedule.cap * (1 + schedule.jitter) + 1e-6
    assert abs(wait - middle) <= middle * schedule.jitter + 1e-6
    assert backoff_wait(schedule, attempt + 1, lambda: 0.5) >= middle


@given(st.lists(st.sampled_from("abcd"), unique=True, max_size=4).map(tuple))
def test_failover_visits_every_relay_once_and_then_says_so(preferred: tuple[str, ...]) -> None:
    route: tuple[str, ...] | None = preferred
    seen = []
    while route:
        seen.append(route[0])
        assert sorted(route) == sorted(preferred)
        route = next_route(route, preferred)
    assert tuple(seen) == preferred


def test_a_route_whose_relay_is_no_longer_the_streams_has_no_next() -> None:
    assert next_route(("gone", "a"), RELAYS) is None
    assert next_route((), RELAYS) is None


# --- where it goes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "path"),
    [
        (outcomes.sent(Reply(250, "2.0.0 ok")), (State.SENT,)),
        (
            outcomes.bounced(Phase.RCPT, GONE, "no_such_user", suppress=Suppress.NOW),
            (State.BOUNCED,),
        ),
        (outcomes.failed(Phase.DATA, GONE, "content_refused"), (State.FAILED,)),
        (outcomes.held("quarantined", "the template is broken"), (State.HELD,)),
    ],
)
def test_an_end_is_an_end(outcome: Outcome, path: tuple[State, ...]) -> None:
    s = after(outcome)
    assert (s.path, s.bucket, s.token, s.recipient_id) == (path, None, 3, 7)
    assert (s.attempt is not None) == outcome.counts
    assert s.error_class == outcome.error_class


def test_held_says_why() -> None:
    assert after(outcomes.held("quarantined", "why")).note == "why"


def test_a_deferral_waits_by_the_number_of_attempts() -> None:
    for before, wait in ((0, 60), (1, 180), (2, 540)):
        s = after(deferred(), of=claim(attempts=before))
        assert (s.path, s.due_at) == ((State.DEFERRED,), NOW + wait * 1000)
        assert s.stored == b"bytes"
        assert s.bucket is None


def test_a_relays_own_wait_counts_up_to_the_cap_and_shortens_nothing() -> None:
    assert after(deferred(retry_after=600)).due_at == NOW + 600_000
    assert after(deferred(retry_after=10**9)).due_at == NOW + 3_600_000
    assert after(deferred(retry_after=1)).due_at == NOW + 60_000


def test_the_attempt_keeps_the_relays_words_and_the_times() -> None:
    reply = Reply(450, "x" * 3000 + "\x00", "4.0.0")
    attempt = after(outcomes.deferred(Phase.DATA, reply, "busy")).attempt
    assert attempt is not None
    assert (attempt.relay, attempt.started_at, attempt.ended_at) == ("a", NOW - 50, NOW)
    assert (attempt.kind, attempt.phase, attempt.code, attempt.enhanced, attempt.error_class) == (
        "defer",
        "data",
        450,
        "4.0.0",
        "busy",
    )
    assert len(attempt.reply) == REPLY_CAP
    short = after(outcomes.deferred(Phase.DATA, Reply(450, "a\x00b"), "busy")).attempt
    assert short is not None
    assert "\x00" not in short.reply  # PostgreSQL takes none


@pytest.mark.parametrize("scope", [Scope.RELAY, Scope.CONNECTION])
@pytest.mark.parametrize("counts", [True, False])
def test_a_relays_fault_goes_to_the_next_relay_at_once(scope: Scope, counts: bool) -> None:
    make = outcomes.deferred if counts else outcomes.untouched
    s = after(make(Phase.CONNECT, Reply(0, "refused"), "connect_failed", scope))
    assert s.due_at == NOW
    assert s.path == (State.DEFERRED if counts else State.QUEUED,)
    assert s.bucket == BucketKey(Lane.BULK, "p", ("b", "c", "a"), "d.example")


@pytest.mark.parametrize("scope", [Scope.RECIPIENT, Scope.MESSAGE, Scope.DOMAIN, Scope.SENDER])
def test_what_is_not_the_relays_fault_stays_with_it(scope: Scope) -> None:
    s = after(deferred(scope))
    assert (s.bucket, s.due_at) == (None, NOW + 60_000)


def test_after_the_last_relay_the_first_has_its_turn_again_later() -> None:
    last = BucketKey(Lane.BULK, "p", ("c", "a", "b"), "d.example")
    s = after(deferred(Scope.RELAY), of=claim(relay="c", attempts=2), bucket=last)
    assert s.due_at == NOW + 540_000
    assert s.bucket == BucketKey(Lane.BULK, "p", RELAYS, "d.example")


def test_a_stream_that_is_gone_neither_moves_nor_crashes() -> None:
    s = after(deferred(Scope.RELAY), preferred=())
    assert (s.bucket, s.path) == (None, (State.DEFERRED,))


def test_the_round_of_the_relays_ends_whatever_they_answer() -> None:
    """No loop of failovers without a wait."""
    bucket, now, waits = BucketKey(Lane.BULK, "p", RELAYS), NOW, []
    for n in range(9):
        c = claim(relay=bucket.route[0], attempts=n)
        s = after(deferred(Scope.RELAY), of=c, bucket=bucket, now=now)
        waits.append(s.due_at - now)
        bucket, now = s.bucket or bucket, s.due_at
    assert [w > 0 for w in waits] == [False, False, True] * 3


# --- what one relay cannot take ---------------------------------------------------------

TOO_LARGE = outcomes.failed(Phase.MAIL, Reply(0, "2000 bytes; takes at most 1000"), "too_large")
SAID_SO = outcomes.failed(Phase.MAIL, Reply(552, "5.3.4 too big", "5.3.4"), "too_large")


def round_of(said: dict[str, Outcome]) -> list[tuple[str, Settlement]]:
    """Each relay in turn gives its answer, up to the first wait or the end."""
    bucket, steps = BucketKey(Lane.BULK, "p", RELAYS, "d.example"), []
    while not steps or (steps[-1][1].bucket is not None and steps[-1][1].due_at == NOW):
        bucket = steps[-1][1].bucket or bucket if steps else bucket
        relay = bucket.route[0]
        steps.append((relay, after(said[relay], of=claim(relay=relay), bucket=bucket)))
    return steps


AT_THE_END = outcomes.failed(Phase.DOT, Reply(552, "5.3.4 too big", "5.3.4"), "too_large")


@pytest.mark.parametrize("outcome", [TOO_LARGE, SAID_SO, AT_THE_END])
def test_a_message_too_large_for_one_relay_goes_to_the_next_at_once(outcome: Outcome) -> None:
    s = after(outcome)
    assert (s.due_at, s.error_class) == (NOW, "too_large")
    assert s.bucket == BucketKey(Lane.BULK, "p", ("b", "c"), "d.example")
    assert s.note == f"a: {outcome.reply}"
    # A look at what the relay offers is no attempt; an answer from it is one.
    said = outcome is not TOO_LARGE
    assert s.path == ((State.DEFERRED,) if said else (State.QUEUED,))
    assert (s.attempt is not None, s.stored is not None) == (said, said)


@pytest.mark.parametrize(
    "error_class", ["too_large", "smtputf8_not_offered", "8bitmime_not_offered"]
)
def test_what_no_relay_can_take_fails_in_the_first_round(error_class: str) -> None:
    misfit = outcomes.failed(Phase.MAIL, Reply(0, "no"), error_class)
    steps = round_of(dict.fromkeys(RELAYS, misfit))
    assert [relay for relay, _ in steps] == ["a", "b", "c"]
    last = steps[-1][1]
    assert (last.path, last.error_class, last.bucket) == ((State.FAILED,), error_class, None)
    assert last.attempt is not None


@pytest.mark.parametrize("away", RELAYS)
def test_a_relay_that_is_away_may_be_the_one_that_can_take_it(away: str) -> None:
    """Too large for the others is no reason to fail: it waits for the one that is away."""
    said = dict.fromkeys(RELAYS, TOO_LARGE) | {away: deferred(Scope.RELAY)}
    steps = round_of(said)
    assert [relay for relay, _ in steps] == ["a", "b", "c"]
    last = steps[-1][1]
    assert last.path in ((State.QUEUED,), (State.DEFERRED,))
    assert last.due_at == NOW + 60_000
    assert last.bucket == BucketKey(Lane.BULK, "p", RELAYS, "d.example")


def test_a_mailboxs_own_size_limit_is_the_same_by_every_way() -> None:
    full = outcomes.failed(Phase.RCPT, Reply(552, "5.2.3 too big", "5.2.3"), "too_large")
    assert after(full).path == (State.FAILED,)


def test_other_failures_of_the_message_are_the_end_of_it() -> None:
    assert after(outcomes.failed(Phase.MAIL, Reply(0, "x"), "address_invalid")).path == (
        State.FAILED,
    )


def test_untouched_costs_no_attempt_and_asks_again_soon() -> None:
    s = after(outcomes.untouched(Phase.BODY, Reply(0, "stopped"), "stopped", Scope.MESSAGE))
    assert (s.path, s.attempt, s.stored) == ((State.QUEUED,), None, None)
    assert NOW + UNTOUCHED_WAIT * 1000 <= s.due_at <= NOW + UNTOUCHED_WAIT * 1200
    told = replace(
        outcomes.untouched(Phase.BODY, Reply(0, "limit"), "limit", Scope.MESSAGE), retry_after=0.0
    )
    # Never at once: the loop would be a busy one.
    assert after(told).due_at > NOW


def test_uncertain_is_tried_again_or_rests_as_the_stream_says() -> None:
    s = after(outcomes.uncertain("lost"))
    assert (s.path, s.due_at) == ((State.UNCERTAIN, State.QUEUED), NOW + 60_000)
    assert s.stored == b"bytes"  # the same bytes, with the same Message-ID
    assert s.attempt is not None
    held = after(outcomes.uncertain("lost"), stream=Stream(uncertain="hold"))
    assert held.path == (State.UNCERTAIN,)
    # It stays where it may have been taken: failover would make a second copy likelier.
    assert s.bucket is None


@pytest.mark.parametrize(
    ("age", "wait", "path"),
    [(0, 60, State.DEFERRED), (86400 - 61, 60, State.DEFERRED), (86400 - 59, 60, State.FAILED)],
)
def test_it_gives_up_when_the_next_attempt_would_be_too_late(
    age: int, wait: int, path: State
) -> None:
    old = claim(letter=replace(claim().letter, date=NOW - age * 1000))
    s = after(deferred(), of=old)
    assert s.path == (path,)
    if path is State.FAILED:
        assert "give_up" in s.note
        assert s.attempt is not None


def test_the_age_counts_from_send_at() -> None:
    """``Letter.date`` is the later of acceptance and ``send_at``."""
    planned = claim(accepted_at=NOW - 10 * 86_400_000)
    assert after(deferred(), of=planned).path == (State.DEFERRED,)


def test_it_expires_when_the_next_attempt_would_be_too_late() -> None:
    assert after(deferred(), of=claim(expires_at=NOW + 60_001)).path == (State.DEFERRED,)
    s = after(deferred(), of=claim(expires_at=NOW + 60_000))
    assert (s.path, s.error_class) == ((State.EXPIRED,), "greylisted")
    assert s.attempt is not None


def test_an_uncertain_one_that_may_not_be_tried_again_rests_uncertain() -> None:
    """It is perhaps delivered: to call it expired or failed would be to know."""
    s = after(outcomes.uncertain("lost"), of=claim(expires_at=NOW + 1))
    assert s.path == (State.UNCERTAIN,)


def test_bytes_are_kept_only_when_an_attempt_does_not_end_it() -> None:
    assert after(outcomes.sent(Reply(250, "ok"))).stored is None
    assert after(deferred()).stored == b"bytes"
    assert (
        after(outcomes.bounced(Phase.RCPT, GONE, "x", suppress=Suppress.NEVER)).stored == b"bytes"
    )
    assert after(deferred(), content=None).stored is None


def test_a_sensitive_claim_settles_as_sensitive() -> None:
    assert after(outcomes.sent(Reply(250, "ok")), of=claim(sensitive=True)).sensitive


OUTCOMES = st.one_of(
    st.just(outcomes.sent(Reply(250, "ok"))),
    st.just(outcomes.uncertain("lost")),
    st.just(outcomes.held("x", "y")),
    st.builds(
        outcomes.deferred,
        st.sampled_from(Phase),
        st.just(LATER),
        st.just("later"),
        st.sampled_from(Scope),
        st.none() | st.floats(0, 1e7),
    ),
    st.builds(
        outcomes.untouched,
        st.sampled_from(Phase),
        st.just(LATER),
        st.just("later"),
        st.sampled_from(Scope),
    ),
    st.builds(outcomes.failed, st.sampled_from(Phase), st.just(GONE), st.just("x")),
)


@given(
    OUTCOMES,
    st.integers(0, 200),
    st.none() | st.integers(NOW - 10**8, NOW + 10**9),
    st.sampled_from(["retry", "hold"]),
    st.sampled_from([RELAYS, ("b", "c", "a"), ("c", "a", "b"), ("x",)]),
    st.floats(0, 0.999),
)
def test_every_outcome_has_a_legal_end_and_what_waits_is_due(
    outcome: Outcome,
    attempts: int,
    expires_at: int | None,
    uncertain: str,
    route: tuple[str, ...],
    chance: float,
) -> None:
    """``Settlement`` itself refuses a path that the table does not know."""
    s = after(
        outcome,
        of=claim(attempts=attempts, expires_at=expires_at, relay=route[0]),
        stream=Stream(retry=STREAM.retry, uncertain=uncertain),
        bucket=BucketKey(Lane.BULK, "p", route),
        random=lambda: chance,
    )
    if s.path[-1] in (State.QUEUED, State.DEFERRED):
        assert NOW <= s.due_at <= NOW + 3600 * 1000 * 1.2 + 1
        assert expires_at is None or s.due_at < expires_at
        assert s.due_at > NOW or s.bucket is not None
    else:
        assert s.bucket is None
