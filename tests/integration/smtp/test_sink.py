"""Against Postfix's smtp-sink and its fault switches: a server that we did not write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mailgate.model.outcome import Kind, Outcome, Scope
from mailgate.model.state import Phase
from mailgate.smtp.pool import Pool
from tests.integration.smtp.conftest import envelope, settings
from tests.integration.smtp.scripted import Marks
from tests.servers import Sink

Start = Callable[..., Sink]


async def outcome_with(
    smtp_sink: Start, pool_for: Callable[..., Pool], *switches: str
) -> tuple[Outcome, list[str], Sink]:
    marks = Marks()
    sink = smtp_sink(*switches)
    pool = pool_for(settings(sink.port))
    outcome = await pool.deliver("main", envelope(), marks)
    return outcome, marks.said, sink


@pytest.mark.parametrize("switches", [(), ("-p",), ("-e",), ("-8", "-E"), ("-w", "1")])
async def test_mail_arrives_however_little_the_relay_offers(
    smtp_sink: Start, pool_for: Callable[..., Pool], switches: tuple[str, ...]
) -> None:
    outcome, said, sink = await outcome_with(smtp_sink, pool_for, *switches)
    assert outcome.kind is Kind.SENT
    assert said == ["dot", "accepted"]
    (mail,) = sink.mails()
    assert b"X-Rcpt-Args: <ann@example.net>" in mail
    assert b"\n.dot first\n..\nlast\n" in mail.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    ("switches", "kind", "phase", "error_class"),
    [
        (("-q", "."), Kind.UNCERTAIN, Phase.DOT, "no_reply_after_dot"),
        (("-Q", "."), Kind.DEFER, Phase.DOT, "relay_closing"),
        (("-f", "."), Kind.FAIL, Phase.DOT, "relay_trouble"),
        (("-r", "."), Kind.DEFER, Phase.DOT, "relay_trouble"),
        (("-q", "DATA"), Kind.DEFER, Phase.DATA, "connection_lost"),
        (("-Q", "DATA"), Kind.DEFER, Phase.DATA, "relay_closing"),
        (("-f", "DATA"), Kind.FAIL, Phase.DATA, "relay_trouble"),
        (("-q", "RCPT"), Kind.DEFER, Phase.RCPT, "connection_lost"),
        (("-Q", "RCPT"), Kind.DEFER, Phase.RCPT, "relay_closing"),
        (("-r", "RCPT", "-b", "451 4.7.1 Greylisted"), Kind.DEFER, Phase.RCPT, "greylisted"),
        (
            ("-f", "RCPT", "-B", "550 5.1.1 User unknown"),
            Kind.BOUNCE,
            Phase.RCPT,
            "unknown_address",
        ),
        (("-q", "MAIL"), Kind.DEFER, Phase.MAIL, "connection_lost"),
        (("-Q", "MAIL"), Kind.DEFER, Phase.MAIL, "relay_closing"),
        (("-f", "MAIL"), Kind.FAIL, Phase.MAIL, "sender_refused"),
        (("-r", "MAIL"), Kind.DEFER, Phase.MAIL, "relay_trouble"),
        (("-q", "CONNECT"), Kind.DEFER, Phase.GREETING, "connection_lost"),
        (("-Q", "CONNECT"), Kind.DEFER, Phase.GREETING, "greeting_refused"),
        (("-f", "CONNECT"), Kind.DEFER, Phase.GREETING, "greeting_refused"),
        (("-q", "EHLO"), Kind.DEFER, Phase.EHLO, "connection_lost"),
        (("-r", "EHLO"), Kind.DEFER, Phase.EHLO, "ehlo_refused"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, tuple) else None,
)
async def test_a_fault_of_the_sink_has_its_name(
    smtp_sink: Start,
    pool_for: Callable[..., Pool],
    switches: tuple[str, ...],
    kind: Kind,
    phase: Phase,
    error_class: str,
) -> None:
    outcome, said, _ = await outcome_with(smtp_sink, pool_for, *switches)
    assert (outcome.kind, outcome.phase, outcome.error_class) == (kind, phase, error_class)
    reached_dot = phase is Phase.DOT
    assert said == (["dot"] if kind is Kind.UNCERTAIN else ["dot", "refused"] * reached_dot)
    if phase in (Phase.CONNECT, Phase.GREETING, Phase.EHLO):
        assert outcome.scope is Scope.RELAY


async def test_a_relay_that_stops_listening_after_data_is_not_a_yes(
    smtp_sink: Start, pool_for: Callable[..., Pool]
) -> None:
    """``-A 0``: 354, then 550 without reading the body."""
    outcome, said, sink = await outcome_with(smtp_sink, pool_for, "-A", "0")
    assert outcome.kind is not Kind.SENT
    assert "accepted" not in said
    assert not any(b"last" in mail for mail in sink.mails())


async def test_a_thousand_messages_over_four_connections_all_arrive(
    smtp_sink: Start, pool_for: Callable[..., Pool]
) -> None:
    sink = smtp_sink()
    pool = pool_for(settings(sink.port, messages_per_connection=90))
    outcomes = await asyncio.gather(
        *(pool.deliver("main", envelope(f"u{n}@example.net"), Marks()) for n in range(1000))
    )
    assert {o.kind for o in outcomes} == {Kind.SENT}
    assert len(sink.mails()) == 1000
