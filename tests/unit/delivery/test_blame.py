"""What a failure is held against its address for, and how long."""

from __future__ import annotations

import pytest

from mailgate.config.suppressions import Suppressions
from mailgate.delivery.blame import blamed
from mailgate.journal.suppressions import Blame
from mailgate.model import outcome as outcomes
from mailgate.model.outcome import Outcome, Reply, Scope, Suppress
from mailgate.model.state import Phase, State
from tests.unit.delivery.test_retry import NOW, after, claim

DAY = 86_400_000
POLICY = Suppressions()


def bounce(suppress: Suppress, error_class: str = "unknown_address") -> Outcome:
    return outcomes.bounced(
        Phase.RCPT, Reply(550, "5.1.1 No", "5.1.1"), error_class, suppress=suppress
    )


def full(code: int = 452) -> Outcome:
    reply = Reply(code, "4.2.2 Full", "4.2.2")
    return outcomes.deferred(
        Phase.RCPT, reply, "mailbox_full", Scope.RECIPIENT, 3600, Suppress.AGAIN
    )


def test_a_dead_address_is_suppressed_at_once_with_the_relays_words() -> None:
    assert blamed(claim(), bounce(Suppress.NOW), POLICY, NOW) == Blame(
        address="a@x.example",
        reason="unknown_address",
        evidence="a: 550 5.1.1 No",
        expires_at=NOW + 90 * DAY,
        hits=1,
        apart=DAY,
        within=30 * DAY,
    )


@pytest.mark.parametrize(
    ("error_class", "hits", "days"), [("mailbox_full", 3, 7), ("recipient_refused", 2, 30)]
)
def test_what_proves_nothing_by_itself_is_counted(error_class: str, hits: int, days: int) -> None:
    held = blamed(claim(), bounce(Suppress.AGAIN, error_class), POLICY, NOW)
    assert held is not None
    assert (held.hits, held.expires_at) == (hits, NOW + days * DAY)


def test_nobody_is_blamed_where_the_address_is_not_at_fault_or_nobody_may_be() -> None:
    assert blamed(claim(), bounce(Suppress.NEVER), POLICY, NOW) is None
    assert blamed(claim(), bounce(Suppress.NOW), Suppressions(bounces=False), NOW) is None
    never = Suppressions(full_after=0, refused_after=0)
    assert blamed(claim(), bounce(Suppress.AGAIN, "mailbox_full"), never, NOW) is None
    assert blamed(claim(), bounce(Suppress.AGAIN), never, NOW) is None


def test_a_settled_bounce_carries_its_blame_and_a_sent_mail_the_address() -> None:
    assert after(bounce(Suppress.NOW), suppressions=POLICY).blame is not None
    assert after(bounce(Suppress.NOW)).blame is None
    done = after(outcomes.sent(Reply(250, "ok")), suppressions=POLICY)
    assert (done.took, done.blame) == ("a@x.example", None)
    waiting = after(full(), suppressions=POLICY)
    assert (waiting.path, waiting.blame) == ((State.DEFERRED,), None)


def test_a_mailbox_that_stays_full_bounces_when_the_stream_gives_up() -> None:
    late = NOW + 2 * DAY
    done = after(full(), suppressions=POLICY, now=late)
    assert done.path == (State.BOUNCED,)
    assert "gave up" in done.note
    assert done.blame is not None
    assert done.blame.reason == "mailbox_full"
    # What is not the address's fault fails as before.
    other = outcomes.deferred(Phase.RCPT, Reply(451, "later"), "recipient_deferred")
    assert after(other, suppressions=POLICY, now=late).path == (State.FAILED,)
    assert after(other, suppressions=POLICY, now=late).blame is None
