"""What becomes of the recipients that a dead process had claimed."""

from __future__ import annotations

import itertools

import pytest

from mailgate.config.streams import Backoff, Stream
from mailgate.delivery.recovery import judge
from mailgate.delivery.spool import Mark
from mailgate.journal.leases import Orphan
from mailgate.journal.settling import Settlement
from mailgate.model.state import State

NOW = 1_800_000_000_000
RETRY = Stream(retry=Backoff(first=60, factor=2, cap=600))
HOLD = Stream(retry=RETRY.retry, uncertain="hold")


def orphan(*, suspect: bool = False, deaths: int = 0, attempts: int = 0) -> Orphan:
    return Orphan(7, 1, 3, "s", suspect, deaths, attempts, "relay", sensitive=True)


def judged(
    marks: dict[tuple[int, int], Mark] | None, *, stream: Stream = RETRY, of: Orphan | None = None
) -> Settlement:
    return judge(of or orphan(), marks, stream=stream, max_deaths=2, now=NOW, random=lambda: 0.5)


def marked(mark: Mark) -> dict[tuple[int, int], Mark]:
    return {(7, 3): mark}


@pytest.mark.parametrize("marks", [{}, marked(Mark.NONE), marked(Mark.REFUSED)])
@pytest.mark.parametrize("stream", [RETRY, HOLD])
def test_certainly_not_delivered_goes_again_at_once(
    marks: dict[tuple[int, int], Mark], stream: Stream
) -> None:
    s = judged(marks, stream=stream)
    assert (s.path, s.due_at, s.attempt) == ((State.QUEUED,), NOW, None)
    assert (s.suspect, s.deaths, s.token) == (True, 0, 3)


def test_a_250_on_record_is_sent() -> None:
    s = judged(marked(Mark.ACCEPTED), of=orphan(suspect=True, deaths=1))
    assert (s.path, s.suspect, s.sensitive) == ((State.SENT,), False, True)
    assert s.attempt is not None
    assert (s.attempt.kind, s.attempt.code, s.attempt.relay) == ("sent", 250, "relay")


@pytest.mark.parametrize("marks", [None, marked(Mark.DOT)], ids=["no evidence", "dot"])
def test_perhaps_delivered_is_uncertain_and_follows_the_stream(
    marks: dict[tuple[int, int], Mark] | None,
) -> None:
    s = judged(marks, of=orphan(attempts=1))
    assert (s.path, s.due_at) == ((State.UNCERTAIN, State.QUEUED), NOW + 120_000)
    assert s.attempt is not None
    assert s.attempt.kind == "uncertain"
    assert s.error_class == ("worker_lost" if marks is None else "worker_died_after_dot")
    assert judged(marks, stream=HOLD).path == (State.UNCERTAIN,)


def test_the_mark_of_another_claim_says_nothing() -> None:
    """An old slot of the same recipient, and a slot of another."""
    s = judged({(7, 2): Mark.ACCEPTED, (8, 3): Mark.DOT})
    assert s.path == (State.QUEUED,)


def test_no_spool_is_not_an_empty_spool() -> None:
    assert judged(None).path[0] is State.UNCERTAIN
    assert judged({}).path == (State.QUEUED,)


def test_a_death_among_others_counts_for_nobody() -> None:
    s = judged({}, of=orphan(suspect=False, deaths=1))
    assert (s.deaths, s.path, s.suspect) == (0, (State.QUEUED,), True)


def test_deaths_alone_add_up_to_poison() -> None:
    s = judged({}, of=orphan(suspect=True, deaths=0))
    assert (s.deaths, s.path) == (1, (State.QUEUED,))
    s = judged({}, of=orphan(suspect=True, deaths=1))
    assert (s.deaths, s.path, s.error_class) == (1, (State.HELD,), "poison")
    assert "2 times" in s.note


def test_poison_past_its_dot_is_not_sent_again_and_not_called_undelivered() -> None:
    s = judged(marked(Mark.DOT), of=orphan(suspect=True, deaths=1))
    assert s.path == (State.UNCERTAIN,)


@pytest.mark.parametrize(
    ("mark", "stream", "suspect", "deaths"),
    list(itertools.product([None, *Mark], [RETRY, HOLD], [True, False], [0, 1, 9])),
)
def test_every_case_has_a_legal_end_and_repeats_nothing_in_silence(
    mark: Mark | None, stream: Stream, suspect: bool, deaths: int
) -> None:
    s = judged(
        None if mark is None else marked(mark),
        stream=stream,
        of=orphan(suspect=suspect, deaths=deaths),
    )
    if mark in (None, Mark.DOT):
        assert s.path[0] is State.UNCERTAIN
        assert s.attempt is not None
        assert s.attempt.kind == "uncertain"
    if mark is Mark.ACCEPTED:
        assert s.path == (State.SENT,)
    assert (s.recipient_id, s.message_id, s.token) == (7, 1, 3)
    assert s.path[-1] in (State.QUEUED, State.SENT, State.HELD, State.UNCERTAIN)
