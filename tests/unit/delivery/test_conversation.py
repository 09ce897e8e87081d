"""What a conversation hands on to the relay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mailgate.config.sandbox import Sandbox
from mailgate.delivery.conversation import Unmarked, converse
from mailgate.limits.symptoms import signals
from mailgate.model import outcome as outcomes
from mailgate.model.address import Address
from mailgate.model.message import Claim, Envelope, Letter
from mailgate.model.outcome import Outcome, Reply
from mailgate.model.state import Lane
from mailgate.model.value import replace
from mailgate.smtp.opening import Offers
from mailgate.smtp.transaction import unfit

_LETTER = Letter("<1@x.example>", 0, "1", Address("s@x.example"), (Address("a@x.example"),))
_CLAIM = Claim(7, 3, 1, "p", "s", Lane.BULK, "a", _LETTER.to[0], _LETTER, "s@x.example", 0, 0, 1)


@pytest.mark.parametrize(("stored", "refused"), [(None, False), (b"kept\nbadly\r\n", True)])
def test_what_was_kept_is_looked_at_again_and_what_was_just_made_is_not(
    stored: bytes | None, refused: bool
) -> None:
    given: list[Envelope] = []

    async def send(relay: str, envelope: Envelope, *_: Any) -> Outcome:
        given.append(envelope)
        return outcomes.sent(Reply(250, "2.0.0 Ok"))

    async def fetch(claim: Claim) -> Claim:
        raise AssertionError("nothing is unread")

    claim = replace(_CLAIM, stored=stored)
    marks: Any = Unmarked()
    conversation = converse(
        claim, None, marks, lambda _: b"made\r\n", send, lambda *_: None, Sandbox(), fetch
    )
    asyncio.run(conversation)
    [envelope] = given
    assert envelope.sound is (stored is None)
    assert (unfit(envelope, Offers()) is not None) is refused


@pytest.mark.parametrize(
    ("end", "error_class"),
    [(ZeroDivisionError(), "internal_error"), (asyncio.CancelledError(), "stopped")],
)
def test_what_we_break_off_ourselves_after_the_dot_is_uncertain_and_not_the_relays_fault(
    end: BaseException, error_class: str
) -> None:
    class PastTheDot(Unmarked):
        past_dot = True

    async def send(*_: Any) -> Outcome:
        raise end

    async def fetch(claim: Claim) -> Claim:
        raise AssertionError("nothing is unread")

    marks: Any = PastTheDot()
    conversation = converse(
        _CLAIM, None, marks, lambda _: b"made\r\n", send, lambda *_: None, Sandbox(), fetch
    )
    outcome, content = asyncio.run(conversation)
    assert (outcome.kind, outcome.error_class) == (outcomes.Kind.UNCERTAIN, error_class)
    assert content == b"made\r\n"
    assert signals(outcome, "a", "x.example", "s@x.example") == []
