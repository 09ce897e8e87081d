"""What is told of a conversation's end, and how fast mail is seen to get through."""

from __future__ import annotations

from typing import Any

import pytest

from mailgate.config.shape import Config
from mailgate.dispatch.flow import Flow
from mailgate.dispatch.gate import Gate
from mailgate.dispatch.witness import SPAN, Pulse, Witness
from mailgate.journal.breakers import Health
from mailgate.limits.breaker import Kind, Record, Sign, Subject
from mailgate.model import outcome as outcomes
from mailgate.model.address import Address
from mailgate.model.message import Claim, Letter
from mailgate.model.outcome import Outcome, Reply, Scope
from mailgate.model.state import Lane, Phase

MAIN = Subject(Kind.RELAY, "main")
THERE = Subject(Kind.DOMAIN, "main", "example.org")
WHO = Subject(Kind.SENDER, "main", "shop@example.com")
SENT = outcomes.sent(Reply(250, "ok"))
SLOW = outcomes.deferred(Phase.DOT, Reply(421, "slow"), "rate_limited", Scope.DOMAIN)
STOPPED = outcomes.untouched(Phase.BODY, Reply(0, ""), "stopped", Scope.MESSAGE)
AWAY = outcomes.deferred(Phase.CONNECT, Reply(0, "no"), "connect_failed", Scope.RELAY)


def claim() -> Claim:
    letter = Letter("<1@x.example>", 0, "1", Address(WHO.name), (Address("a@example.org"),))
    return Claim(7, 3, 1, "p", "s", Lane.BULK, "main", letter.to[0], letter, "s@x.example", 0, 0, 1)


def told(
    outcome: Outcome, known: dict[Subject, Record] | None = None, *probes: Subject
) -> dict[Subject, Sign]:
    gate = Gate(Config())
    gate.see({who: Health(record) for who, record in (known or {}).items()}, frozenset())
    found = Witness(gate, Flow(Config())).showed(claim(), outcome, probes, 0.0)
    return {who: signal.sign for who, signal in found}


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, {}),
        ({MAIN: Record(pace=60, before=120)}, {}),
        ({MAIN: Record(failures=1)}, {MAIN: Sign.OK}),
        ({THERE: Record(opened=1)}, {THERE: Sign.OK}),
        ({WHO: Record(failures=2), MAIN: Record()}, {WHO: Sign.OK}),
    ],
)
def test_a_success_is_told_only_where_something_fails(known: Any, expected: Any) -> None:
    assert told(SENT, known) == expected


def test_a_probe_tells_of_all_that_it_was_to_find_out() -> None:
    assert told(SENT, {}, MAIN, THERE) == {MAIN: Sign.OK, THERE: Sign.OK}
    assert told(STOPPED, {}, MAIN) == {MAIN: Sign.NOTHING}
    assert told(AWAY, {}, MAIN, WHO) == {MAIN: Sign.FAIL, WHO: Sign.NOTHING}


def test_a_failure_makes_it_look_again_at_what_others_have_seen() -> None:
    witness = Witness(Gate(Config()), Flow(Config()))
    witness.showed(claim(), SENT, (), 0.0)
    assert not witness.uneasy
    witness.showed(claim(), AWAY, (), 0.0)
    assert witness.uneasy


def test_a_throttling_reply_knows_the_pace_of_all_workers() -> None:
    witness = Witness(Gate(Config()), Flow(Config()))
    witness.workers = 4
    for n in range(10):
        witness.showed(claim(), SENT, (), n / 10)
    [signal] = [s for who, s in witness.showed(claim(), SLOW, (), SPAN) if who == THERE]
    assert (signal.sign, signal.pace) == (Sign.THROTTLE, 4 * 10 * 60 / SPAN)


def test_the_pulse_forgets() -> None:
    pulse = Pulse()
    for n in range(100):
        pulse.beat("main", "a.example", n / 10)
    assert pulse.pace("main", "a.example", 10.0) == pulse.pace("main", "", 10.0) == 600
    assert pulse.pace("main", "b.example", 10.0) == 0
    assert pulse.pace("main", "", 30.0) == 0


@pytest.mark.parametrize(
    ("outcome", "there", "at_all"),
    [(SENT, True, True), (outcomes.captured(""), True, False), (STOPPED, False, False)],
)
def test_who_is_dealt_with_moves_and_the_relay_only_if_it_replied(
    outcome: Outcome, there: bool, at_all: bool
) -> None:
    flow = Flow(Config())
    Witness(Gate(Config()), flow).showed(claim(), outcome, (), 0.0)
    assert flow.moves("main", "example.org") is there
    assert flow.moves("main") is at_all
