"""What the end of a conversation says about the relay, the destination and the sender."""

from __future__ import annotations

import pytest

from mailgate.limits.breaker import Kind, Sign
from mailgate.limits.symptoms import signals
from mailgate.model import outcome as outcomes
from mailgate.model.outcome import Outcome, Reply, Scope
from mailgate.model.state import Phase
from mailgate.model.value import replace
from mailgate.smtp.classify import classify


def said(outcome: Outcome) -> dict[str, str]:
    found = signals(outcome, "main", "example.org", "shop@example.com")
    return {who.kind.value: signal.sign.value for who, signal in found}


def reply(phase: Phase, code: int, text: str, enhanced: str = "") -> Outcome:
    return classify(phase, Reply(code, text, enhanced))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (outcomes.sent(Reply(250, "ok")), {"relay": "ok", "domain": "ok", "sender": "ok"}),
        (reply(Phase.GREETING, 554, "go away"), {"relay": "fail"}),
        (reply(Phase.EHLO, 421, "closing"), {"relay": "fail"}),
        (reply(Phase.AUTH, 535, "no", "5.7.8"), {"relay": "login"}),
        (reply(Phase.AUTH, 454, "later", "4.7.0"), {"relay": "stop"}),
        (reply(Phase.MAIL, 530, "AUTH first"), {"relay": "login"}),
        (reply(Phase.RCPT, 421, "closing"), {"relay": "fail"}),
        (outcomes.uncertain("lost"), {"relay": "fail"}),
        (reply(Phase.DOT, 454, "Throttling failure: Maximum sending rate"), {"relay": "throttle"}),
        (
            reply(Phase.DOT, 421, "unusual rate of unsolicited mail", "4.7.28"),
            {"relay": "ok", "domain": "throttle"},
        ),
        (
            reply(Phase.MAIL, 421, "4.7.0 [TSS04] temporarily deferred", "4.7.0"),
            {"relay": "ok", "domain": "stop"},
        ),
        (
            reply(Phase.MAIL, 550, "sender not allowed", "5.1.8"),
            {"relay": "ok", "sender": "fail"},
        ),
        (reply(Phase.RCPT, 550, "no such user", "5.1.1"), {"relay": "ok", "domain": "ok"}),
        (reply(Phase.RCPT, 451, "Greylisted", "4.7.1"), {"relay": "ok", "domain": "ok"}),
        (reply(Phase.MAIL, 552, "too large", "5.3.4"), {"relay": "ok"}),
        (reply(Phase.DOT, 554, "5.7.1 Rejected as spam", "5.7.1"), {"relay": "ok"}),
        (reply(Phase.RCPT, 554, "5.7.1 blocked", "5.7.1"), {"relay": "ok", "domain": "fail"}),
        (replace(outcomes.sent(Reply(250, "ok")), aside=True), {}),
        # Nothing was asked, or we ended it ourselves.
        (outcomes.uncertain("stopped", ours="stopped"), {}),
        (outcomes.uncertain("a bug", ours="internal_error"), {}),
        (outcomes.failed(Phase.MAIL, Reply(0, "too large"), "too_large"), {}),
        (outcomes.held("template", "broken"), {}),
        (outcomes.untouched(Phase.CONNECT, Reply(0, ""), "relay_backing_off"), {}),
        (
            outcomes.untouched(Phase.CONNECT, Reply(0, ""), "shutting_down", Scope.CONNECTION),
            {},
        ),
    ],
)
def test_whose_trouble_it_is(outcome: Outcome, expected: dict[str, str]) -> None:
    assert said(outcome) == expected


def test_the_reply_is_kept_short_and_without_nul() -> None:
    long = Reply(450, "x" * 5000 + "\0")
    outcome = outcomes.deferred(Phase.CONNECT, long, "greeting_refused", Scope.RELAY, 5.0)
    [(who, signal)] = signals(outcome, "main", "d", "s", pace=12.0)
    assert (who.kind, signal.sign, signal.code) == (Kind.RELAY, Sign.FAIL, 450)
    assert (len(signal.reply), signal.wait, signal.pace) == (300, 5.0, 12.0)
