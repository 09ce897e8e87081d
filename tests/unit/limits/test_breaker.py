"""The breaker's machine: what opens it, for how long, who probes, how slowed mail recovers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.config.breakers import Breakers
from mailgate.config.terms import Rate
from mailgate.limits.breaker import (
    ABANDONED,
    FORGET,
    LONGEST,
    TOGETHER,
    Kind,
    Record,
    Sign,
    Signal,
    Subject,
    hurried,
    probed,
    rate,
    step,
    subject,
    worth_until,
)

POLICY = Breakers()
NOW = 1_700_000_000_000
OK, FAIL, NOTHING = Signal(Sign.OK), Signal(Sign.FAIL, "connect_failed"), Signal(Sign.NOTHING)
LOGIN = Signal(Sign.LOGIN, "auth_refused", 535, "no")
SLOW = Signal(Sign.THROTTLE, "rate_limited", 421, "slow down", wait=1800, pace=240)


def after(
    record: Record,
    *signals: Signal,
    kind: Kind = Kind.RELAY,
    probe: bool = False,
    now: int = NOW,
    chance: float = 0.5,
) -> Record:
    for signal in signals:
        record = step(
            record, kind, signal, probe=probe, policy=POLICY, now=now, random=lambda: chance
        )
    return record


def seconds(record: Record, now: int = NOW) -> float:
    return (record.until - now) / 1000


# --- opening ------------------------------------------------------------------------


def test_failures_in_a_row_open_it() -> None:
    assert not after(Record(), FAIL, FAIL).open
    opened = after(Record(), FAIL, FAIL, FAIL)
    assert (opened.open, opened.since, seconds(opened)) == (True, NOW, 5.0)
    assert opened.error_class == "connect_failed"


def test_a_success_between_failures_begins_the_row_anew() -> None:
    assert not after(Record(), FAIL, FAIL, OK, FAIL, FAIL).open


def test_failures_of_long_ago_are_no_row() -> None:
    record = after(Record(), FAIL, FAIL)
    assert not after(record, FAIL, now=NOW + FORGET + 1).open
    assert after(record, FAIL, now=NOW + FORGET).open


@pytest.mark.parametrize(("kind", "many"), [(Kind.RELAY, 3), (Kind.DOMAIN, 10), (Kind.SENDER, 3)])
def test_each_kind_has_its_own_patience(kind: Kind, many: int) -> None:
    assert not after(Record(), *[FAIL] * (many - 1), kind=kind).open
    assert after(Record(), *[FAIL] * many, kind=kind).open


def test_a_refused_login_opens_at_once_and_for_long() -> None:
    opened = after(Record(), LOGIN)
    assert (opened.open, seconds(opened), opened.code) == (True, 60.0, 535)


def test_who_names_a_long_wait_is_left_alone_so_long_within_reason() -> None:
    assert seconds(after(Record(), Signal(Sign.STOP, wait=3600), kind=Kind.DOMAIN)) == 3600
    assert seconds(after(Record(), Signal(Sign.STOP, wait=99_999), kind=Kind.DOMAIN)) == 7200
    assert seconds(after(Record(), Signal(Sign.STOP, wait=1))) == 5


def test_waits_double_up_to_the_cap_with_jitter() -> None:
    record, waits, now = after(Record(), FAIL, FAIL, FAIL), [], NOW
    for _ in range(8):
        waits.append(seconds(record, now))
        now = record.until
        record = after(record, FAIL, probe=True, now=now)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    assert record.since == NOW
    for chance, length in ((0.0, 4.0), (1.0, 6.0)):
        assert seconds(after(Record(), FAIL, FAIL, FAIL, chance=chance)) == length


def test_another_cause_begins_its_own_schedule() -> None:
    """A relay that comes back with a broken password is not tried like one that is away."""
    record = after(Record(), FAIL, FAIL, FAIL)
    record = after(record, FAIL, FAIL, LOGIN, probe=True)
    assert seconds(record) == 60
    assert seconds(after(record, LOGIN, probe=True)) == 120


# --- half-open ------------------------------------------------------------------------


def test_a_probe_goes_when_it_is_time_and_only_one() -> None:
    opened = after(Record(), FAIL, FAIL, FAIL)
    assert probed(opened, 7, 1, alive=False, now=opened.until - 1) is None
    mine = probed(opened, 7, 1, alive=False, now=opened.until)
    assert mine is not None
    assert mine.probe == (7, 1)
    assert probed(mine, 8, 1, alive=True, now=opened.until + 10**9) is None
    assert probed(mine, 8, 1, alive=False, now=opened.until) is not None
    assert probed(Record(), 7, 1, alive=False, now=NOW) is None


def test_the_probes_success_closes_it() -> None:
    closed = after(after(Record(), FAIL, FAIL, FAIL), OK, probe=True)
    assert (closed.open, closed.failures) == (False, 0)


@pytest.mark.parametrize("signal", [OK, FAIL, LOGIN, SLOW, NOTHING])
def test_late_words_of_others_change_nothing_while_open(signal: Signal) -> None:
    opened = after(Record(), FAIL, FAIL, FAIL)
    assert after(opened, signal) == opened


def test_a_probe_that_learned_nothing_makes_place_for_the_next_a_little_later() -> None:
    opened = after(Record(), FAIL, FAIL, FAIL)
    now = opened.until
    mine = probed(opened, 7, 1, alive=False, now=now)
    assert mine is not None
    record = after(mine, NOTHING, probe=True, now=now)
    assert (record.opened, seconds(record, now)) == (1, 1.0)
    waiting = after(mine, Signal(Sign.NOTHING, wait=3), probe=True, now=now)
    assert seconds(waiting, now) == 3.0
    # Whatever a relay wishes for: others' mail waits for this too.
    waiting = after(mine, Signal(Sign.NOTHING, wait=86400 * 9999), probe=True, now=now)
    assert seconds(waiting, now) == LONGEST


def test_an_operator_may_have_it_probed_at_once() -> None:
    opened = after(Record(), LOGIN)
    assert probed(hurried(opened, NOW), 7, 1, alive=False, now=NOW) is not None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["try", "end", "die", "wait", "late", "hurry"]),
            st.integers(0, 3),
            st.sampled_from([*Sign]),
        ),
        max_size=60,
    )
)
def test_no_way_leads_to_two_probes(ways: list[tuple[str, int, Sign]]) -> None:
    """Four workers try, end, die and speak late, in any order: one probe at most lives."""
    record, now, token = after(Record(), FAIL, FAIL, FAIL), NOW, 0
    living: dict[int, tuple[int, int]] = {}
    for what, worker, sign in ways:
        if what == "wait":
            now += 7_000
        elif what == "hurry":
            record = hurried(record, now)
        elif what == "late":
            record = after(record, Signal(sign, wait=2), now=now)
        elif what == "try" and worker not in living:
            token += 1
            alive = record.probe in living.values()
            mine = probed(record, worker, token, alive=alive, now=now)
            if mine is not None:
                living[worker] = mine.probe
                record = mine
        elif what in ("end", "die") and worker in living:
            claim = living.pop(worker)
            if what == "end":
                record = after(record, Signal(sign, wait=2), probe=record.probe == claim, now=now)
        assert len(living) <= 1
        assert not (living and not record.open)


# --- slowing down -----------------------------------------------------------------------


def slowed(*, now: int = NOW) -> Record:
    return after(Record(), SLOW, kind=Kind.DOMAIN, now=now)


def test_a_throttling_reply_halves_what_was_going_through() -> None:
    record = slowed()
    assert not record.open
    assert rate(record, POLICY, NOW) == Rate(2, 1.0)


def test_replies_to_mails_that_were_under_way_together_count_once() -> None:
    record = after(slowed(), *[SLOW] * 20, kind=Kind.DOMAIN, now=NOW + TOGETHER - 1)
    assert record == slowed()
    again = after(record, SLOW, kind=Kind.DOMAIN, now=NOW + TOGETHER)
    assert rate(again, POLICY, NOW + TOGETHER) == Rate(60, 60.0)


def test_never_below_the_slowest() -> None:
    record, now = Record(), NOW
    for _ in range(4):
        record = after(record, replace(SLOW, pace=10), OK, kind=Kind.DOMAIN, now=now)
        now += TOGETHER
    assert rate(record, POLICY, now) == Rate(6, 60.0)


def test_throttled_again_and_again_it_opens_for_what_the_reply_means() -> None:
    record, now = Record(), NOW
    for _ in range(10):
        assert not record.open
        now += TOGETHER
        record = after(record, SLOW, kind=Kind.DOMAIN, now=now)
    assert (record.open, seconds(record, now)) == (True, 1800)
    closed = after(record, OK, kind=Kind.DOMAIN, probe=True, now=record.until)
    assert not closed.open


def test_it_recovers_step_by_step_and_is_free_in_the_end() -> None:
    record = slowed()
    later = [NOW + int(n * POLICY.recover * 1000) for n in range(4)]
    assert [rate(record, POLICY, at) for at in later] == [
        Rate(2, 1.0),
        Rate(4, 1.0),
        None,
        None,
    ]
    assert worth_until(record, POLICY, NOW) == later[2]


def test_what_is_not_worth_remembering_is_past() -> None:
    assert worth_until(Record(), POLICY, NOW) == 0
    assert worth_until(after(Record(), FAIL), POLICY, NOW) == NOW + FORGET
    opened = after(Record(), FAIL, FAIL, FAIL)
    assert worth_until(opened, POLICY, NOW) == opened.until + ABANDONED


def test_a_key_reads_back() -> None:
    for one in (
        Subject(Kind.RELAY, "main"),
        Subject(Kind.DOMAIN, "main", "example.org"),
        Subject(Kind.SENDER, "main", '"a:b"@example.com'),
    ):
        assert subject(one.key) == one
