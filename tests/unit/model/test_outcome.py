"""Outcomes: what each counts as."""

from __future__ import annotations

import pytest

from mailgate.model import outcome as outcomes
from mailgate.model.outcome import Kind, Outcome, Reply, Scope, Suppress
from mailgate.model.state import Phase

REPLY = Reply(450, "4.2.1 later", "4.2.1")


@pytest.mark.parametrize(
    ("outcome", "kind", "counts"),
    [
        (outcomes.sent(Reply(250, "ok")), Kind.SENT, True),
        (outcomes.deferred(Phase.RCPT, REPLY, "x"), Kind.DEFER, True),
        (outcomes.bounced(Phase.RCPT, REPLY, "x", suppress=Suppress.NOW), Kind.BOUNCE, True),
        (outcomes.failed(Phase.DATA, REPLY, "x"), Kind.FAIL, True),
        (outcomes.uncertain("gone"), Kind.UNCERTAIN, True),
        (outcomes.untouched(Phase.AUTH, REPLY, "x"), Kind.UNTOUCHED, False),
        (outcomes.held("x", "why"), Kind.HOLD, False),
    ],
)
def test_only_a_conversation_about_the_message_is_an_attempt(
    outcome: Outcome, kind: Kind, counts: bool
) -> None:
    assert (outcome.kind, outcome.counts) == (kind, counts)


def test_uncertain_is_the_connections_fault_after_the_dot() -> None:
    outcome = outcomes.uncertain("connection lost")
    assert (outcome.phase, outcome.scope) == (Phase.DOT, Scope.CONNECTION)


def test_a_reply_reads_as_it_came() -> None:
    assert str(REPLY) == "450 4.2.1 later"
    assert str(Reply(0, "connection refused")) == "connection refused"
