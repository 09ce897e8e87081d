"""What may leave, and the parts that simulated recipients play."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mailgate.config.sandbox import Sandbox
from mailgate.delivery.sandbox import Aside, redirected, way
from mailgate.delivery.simulator import DOMAIN, PARTS
from mailgate.limits.symptoms import signals
from mailgate.model import outcome as outcomes
from mailgate.model.message import Envelope
from mailgate.model.outcome import Kind, Outcome, Reply, Suppress
from mailgate.model.state import Phase

CAPTURE = Sandbox(mode="capture", allow=("*@ours.example", "ann@x.example"))
REDIRECT = Sandbox(mode="redirect", redirect_to="qa@ours.example", allow=("ann@x.example",))


def to(email: str) -> Envelope:
    return Envelope("shop@example.com", email, b"Subject: x\r\n\r\nHello\r\n")


@pytest.mark.parametrize(
    ("email", "leaves"),
    [
        ("bob@ours.example", True),
        ("BOB@ours.example", True),
        ("Ann@x.example", True),
        ("bob@x.example", False),
        ("bob@sub.ours.example", False),
        ("bob@ours.example.net", False),
        ("bob@notours.example", False),
        ("*@x.example", False),
        ("ann+tag@x.example", False),
    ],
)
def test_only_those_who_are_listed_get_mail(email: str, leaves: bool) -> None:
    went = way(CAPTURE, to(email), 0)
    assert went == to(email) if leaves else isinstance(went, Aside)


def test_what_is_captured_touches_no_relay_and_costs_no_attempt() -> None:
    went = way(CAPTURE, to("bob@x.example"), 0)
    assert isinstance(went, Aside)
    assert went.outcome.kind is Kind.CAPTURED
    assert not went.outcome.counts
    assert went.outcome.aside
    assert went.seconds == 0


def test_in_production_mail_goes_where_it_says() -> None:
    assert way(Sandbox(), to("bob@x.example"), 0) == to("bob@x.example")


def test_a_redirected_mail_keeps_its_recipient_in_a_field_above_the_signature() -> None:
    went = way(REDIRECT, to("bob@x.example"), 0)
    assert isinstance(went, Envelope)
    assert (went.mail_from, went.rcpt_to) == ("shop@example.com", "qa@ours.example")
    assert went.content == b"X-Original-To: bob@x.example\r\n" + to("bob@x.example").content
    assert way(REDIRECT, to("ann@x.example"), 0) == to("ann@x.example")


def test_a_redirected_mail_asks_the_relay_for_no_more_than_before() -> None:
    went = way(REDIRECT, to("grüße@x.example"), 0)
    assert isinstance(went, Envelope)
    assert not went.smtputf8


def test_the_address_that_others_mail_went_to_is_not_blamed_on_them() -> None:
    reply = Reply(550, "5.1.1 no such user", "5.1.1")
    outcome = outcomes.bounced(Phase.RCPT, reply, "unknown_address", suppress=Suppress.NOW)
    assert redirected(outcome).suppress is Suppress.NEVER
    assert "redirected" in redirected(outcome).note


@given(
    st.sampled_from(
        ["a@x.example", "b@y.example", "qa@ours.example", f"sent@{DOMAIN}", "é@x.example"]
    ),
    st.integers(0, 9),
)
def test_no_mode_but_off_lets_a_stranger_have_mail(email: str, attempts: int) -> None:
    for sandbox in (CAPTURE, REDIRECT):
        went = way(sandbox, to(email), attempts)
        if isinstance(went, Envelope):
            assert went.rcpt_to in ("qa@ours.example", "ann@x.example")


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ({"allow": ["a@x.example"]}, "allow is set"),
        ({"redirect_to": "a@x.example"}, "redirect_to is set"),
        ({"mode": "redirect"}, "redirect_to is required"),
        ({"mode": "capture", "redirect_to": "a@x.example"}, "redirect_to is set"),
        ({"mode": "capture", "inbox": "h"}, "inbox"),
        ({"mode": "capture", "inbox": "h:0"}, "inbox"),
        ({"mode": "on"}, "mode"),
        ({"mode": "Capture"}, "mode"),
        ({"mode": ""}, "mode"),
        ({"mode": "redirect", "redirect_to": "a@x.example, b@x.example"}, "redirect_to"),
        ({"mode": "capture", "allow": ["*"]}, "allow"),
        ({"mode": "capture", "allow": ["*@*.example"]}, "allow"),
    ],
)
def test_what_is_half_said_is_refused(said: dict[str, object], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        Sandbox.model_validate(said)


# --- simulated recipients ----------------------------------------------------------------


def played(local: str, attempts: int = 0, sandbox: Sandbox = CAPTURE) -> Outcome:
    went = way(sandbox, to(f"{local}@{DOMAIN}"), attempts)
    assert isinstance(went, Aside)
    return went.outcome


@pytest.mark.parametrize(
    ("local", "kinds"),
    [
        ("sent", "sent"),
        ("slow", "sent"),
        ("defer", "defer sent"),
        ("defer-twice", "defer defer sent"),
        ("full", "defer defer defer"),
        ("bounce", "bounce bounce"),
        ("fail", "fail"),
        ("uncertain", "uncertain sent"),
        ("nobody", "bounce"),
    ],
)
def test_each_plays_its_part_attempt_after_attempt(local: str, kinds: str) -> None:
    for sandbox in (CAPTURE, REDIRECT, Sandbox()):
        for attempts, kind in enumerate(kinds.split()):
            assert played(local, attempts, sandbox).kind == kind
            assert played(f"{local.upper()}+order-7", attempts, sandbox).kind == kind


@pytest.mark.parametrize("local", [*PARTS, "nobody"])
def test_no_part_blames_an_address_or_a_relay(local: str) -> None:
    """A producer's tests may suppress nothing and open or close no breaker."""
    for attempts in range(4):
        outcome = played(local, attempts)
        assert outcome.suppress is Suppress.NEVER
        assert outcome.counts
        assert "simulated" in outcome.note
        assert "simulated" in outcome.reply.text
        assert signals(outcome, "main", DOMAIN, "shop@example.com") == []


def test_a_part_that_nobody_knows_names_those_that_there_are() -> None:
    assert "defer-twice@" in played("nobody").reply.text


def test_the_domain_alone_is_simulated() -> None:
    assert isinstance(way(Sandbox(), to(f"sent@x.{DOMAIN}"), 0), Envelope)
    assert isinstance(way(Sandbox(), to("sent@mailgate.test"), 0), Envelope)


def test_the_producers_guide_tells_every_part() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "producers.md").read_text(encoding="utf-8")
    for name, part in PARTS.items():
        assert f"| `{name}@{DOMAIN}` | {part.says} |\n" in guide
        classes = {act.error_class for act in part.acts} - {"", "relay_trouble"}
        assert all(f"`{c}`" in part.says for c in classes if name != "uncertain")
