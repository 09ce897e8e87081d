"""One conversation: what goes out, and what each fault at each point comes to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from mailgate.model.outcome import Kind, LeaseLost, Outcome, Scope
from mailgate.model.state import Phase
from mailgate.smtp import session as session_module
from mailgate.smtp.session import Session
from tests.integration.smtp.conftest import CONTENT, envelope, settings
from tests.integration.smtp.scripted import Heard, Marks, ScriptedRelay

PIPELINED = ("PIPELINING", "SIZE 50000000", "8BITMIME")
STEPWISE = ("SIZE 50000000", "8BITMIME")
both_ways = pytest.mark.parametrize("offers", [PIPELINED, STEPWISE], ids=["pipelined", "stepwise"])
STUFFED = b"Subject: hello\r\n\r\nFirst line\r\n..dot first\r\n...\r\nlast\r\n"
LARGE = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 120_000


async def send(
    relay: ScriptedRelay, marks: Marks | None = None, content: bytes = CONTENT, **more: Any
) -> Outcome:
    session = await Session.open(settings(relay.port, **more))
    try:
        return await session.send(envelope(content=content), marks or Marks())
    finally:
        session.abort()


# --- what goes out -----------------------------------------------------------------


@both_ways
async def test_a_message_is_sent_and_arrives_byte_for_byte(offers: Sequence[str]) -> None:
    marks = Marks()
    async with ScriptedRelay(offers=offers) as relay:
        outcome = await send(relay, marks)
        assert outcome.kind is Kind.SENT
        assert outcome.reply.code == 250
        assert outcome.reply.enhanced == "2.0.0"
        assert marks.said == ["dot", "accepted"]
        assert relay.mails == [STUFFED]
        assert relay.heard[0].commands[1:3] == [
            f"MAIL FROM:<bounces@example.com> SIZE={len(CONTENT)}",
            "RCPT TO:<ann@example.net>",
        ]


async def test_pipelining_sends_mail_rcpt_and_data_in_one_write() -> None:
    async def mail(heard: Heard) -> str:
        # All three are there before the first is answered.
        assert (await heard.reader.readline()).startswith(b"RCPT")
        assert await heard.reader.readline() == b"DATA\r\n"
        await heard.say("250 ok\n250 ok\n354 go on")
        assert await heard.reader.readuntil(b"\r\n.\r\n")
        return "250 2.0.0 Queued"

    async with ScriptedRelay(MAIL=mail) as relay:
        assert (await send(relay)).kind is Kind.SENT


async def test_the_null_sender_is_an_empty_path() -> None:
    async with ScriptedRelay(offers=()) as relay:
        session = await Session.open(settings(relay.port))
        outcome = await session.send(envelope(mail_from=""), Marks())
        assert outcome.kind is Kind.SENT
        assert relay.heard[0].commands[1] == "MAIL FROM:<>"
        await session.quit()
        assert relay.heard[0].commands[-1] == "QUIT"


@pytest.mark.parametrize(
    "address",
    [
        "a@example.com, b@example.com",
        '"x" <a@evil.example> b@example.com',
        "a@example.com> SIZE=1",
        "a@example.com\r\nRCPT TO:<b@example.com>",
        "a b@example.com",
        "a@example.com\x00",
    ],
)
async def test_an_address_that_is_not_literal_is_refused_and_never_rewritten(address: str) -> None:
    async with ScriptedRelay() as relay:
        session = await Session.open(settings(relay.port))
        for each in (envelope(rcpt=address), envelope(mail_from=address)):
            outcome = await session.send(each, Marks())
            assert (outcome.kind, outcome.error_class) == (Kind.FAIL, "address_invalid")
        assert relay.heard[0].verbs == ["EHLO"]
        session.abort()


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"a\r\n.\n", b"no end", b"", b"a\r"])
async def test_content_with_a_bare_line_end_is_never_sent(content: bytes) -> None:
    async with ScriptedRelay() as relay:
        outcome = await send(relay, content=content)
        assert (outcome.kind, outcome.error_class) == (Kind.FAIL, "content_invalid")
        assert relay.heard[0].verbs == ["EHLO"]


async def test_a_message_above_the_announced_size_is_not_offered() -> None:
    async with ScriptedRelay(offers=("PIPELINING", "SIZE 50")) as relay:
        outcome = await send(relay)
        assert (outcome.kind, outcome.error_class) == (Kind.FAIL, "too_large")
        assert outcome.scope is Scope.MESSAGE
        assert relay.heard[0].verbs == ["EHLO"]


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE many"])
async def test_a_relay_that_names_no_size_takes_any(size: str) -> None:
    async with ScriptedRelay(offers=(size,)) as relay:
        assert (await send(relay)).kind is Kind.SENT


async def test_smtputf8_is_asked_for_only_when_needed() -> None:
    async with ScriptedRelay(offers=("SMTPUTF8", "8BITMIME")) as relay:
        session = await Session.open(settings(relay.port))
        await session.send(envelope(), Marks())
        outcome = await session.send(envelope("grün@example.net"), Marks())
        assert outcome.kind is Kind.SENT
        assert [c for c in relay.heard[0].commands if "UTF8" in c or "grün" in c] == [
            "MAIL FROM:<bounces@example.com> SMTPUTF8",
            "RCPT TO:<grün@example.net>",
        ]
        session.abort()


async def test_smtputf8_needed_and_not_offered_fails_clearly() -> None:
    async with ScriptedRelay() as relay:
        session = await Session.open(settings(relay.port))
        outcome = await session.send(envelope("grün@example.net"), Marks())
        assert (outcome.kind, outcome.error_class) == (Kind.FAIL, "smtputf8_not_offered")
        assert relay.heard[0].verbs == ["EHLO"]
        session.abort()


async def test_an_address_in_the_header_beyond_ascii_is_declared_or_refused() -> None:
    content = "To: grün@example.net\r\n\r\nhello\r\n".encode()
    async with ScriptedRelay(offers=("8BITMIME", "SMTPUTF8")) as relay:
        assert (await send(relay, content=content)).kind is Kind.SENT
        assert relay.heard[0].commands[1].endswith(" BODY=8BITMIME SMTPUTF8")
        assert relay.mails == [content]
    for offers, lacking in ((("8BITMIME",), "smtputf8"), (("SMTPUTF8",), "8bitmime")):
        async with ScriptedRelay(offers=offers) as relay:
            outcome = await send(relay, content=content)
            assert (outcome.kind, outcome.error_class) == (Kind.FAIL, f"{lacking}_not_offered")


# --- refusals -------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize(
    ("word", "reply", "phase", "kind"),
    [
        ("MAIL", "550 5.7.1 No", Phase.MAIL, Kind.FAIL),
        ("MAIL", "451 4.3.0 Later", Phase.MAIL, Kind.DEFER),
        ("RCPT", "550 5.1.1 No such user", Phase.RCPT, Kind.BOUNCE),
        ("RCPT", "450 4.7.1 Greylisted", Phase.RCPT, Kind.DEFER),
        ("DATA", "451 4.3.0 Later", Phase.DATA, Kind.DEFER),
        ("DOT", "554 5.7.1 Spam", Phase.DOT, Kind.FAIL),
        ("DOT", "451 4.3.0 Later", Phase.DOT, Kind.DEFER),
    ],
)
async def test_a_refusal_is_judged_in_its_phase_and_the_connection_stays(
    offers: Sequence[str], word: str, reply: str, phase: Phase, kind: Kind
) -> None:
    answers: dict[str, Any] = {
        word: [reply, {"DATA": "354 go", "DOT": "250 ok"}.get(word, "250 ok")]
    }
    if offers is PIPELINED and word in ("MAIL", "RCPT"):
        answers["DATA"] = ["503 5.5.1 No valid recipients", "354 go on"]
    marks = Marks()
    async with ScriptedRelay(offers=offers, **answers) as relay:
        session = await Session.open(settings(relay.port))
        outcome = await session.send(envelope(), marks)
        assert (outcome.phase, outcome.kind, str(outcome.reply)) == (phase, kind, reply)
        assert marks.said == (["dot", "refused"] if word == "DOT" else [])
        assert session.alive
        if session.dirty:
            assert await session.reset()
        assert (await session.send(envelope(), Marks())).kind is Kind.SENT
        assert len(relay.heard) == 1
        session.abort()


@pytest.mark.parametrize("answer", ["250 2.0.0 Ok", "554 5.5.1 No valid recipients"])
async def test_data_accepted_although_rcpt_was_refused_gets_a_lone_dot(answer: str) -> None:
    answers = {"RCPT": ["550 5.1.1 No such user", "250 ok"], "DOT": [answer, "250 2.0.0 Queued"]}
    marks = Marks()
    async with ScriptedRelay(**answers) as relay:
        session = await Session.open(settings(relay.port))
        outcome = await session.send(envelope(), marks)
        assert (outcome.kind, outcome.phase) == (Kind.BOUNCE, Phase.RCPT)
        assert marks.said == []
        assert relay.mails == [b""]
        # Its answer was read: the next message is not given it.
        assert await session.reset()
        assert (await session.send(envelope(), Marks())).reply.text == "2.0.0 Queued"
        session.abort()


@both_ways
@pytest.mark.parametrize("word", ["MAIL", "RCPT", "DATA", "DOT"])
async def test_a_421_in_the_middle_keeps_its_code(offers: Sequence[str], word: str) -> None:
    async def closing(heard: Heard) -> str:
        await heard.say("421 4.3.2 Shutting down")
        return "close"

    async with ScriptedRelay(offers=offers, **{word: closing}) as relay:
        outcome = await send(relay)
        assert outcome.kind is Kind.DEFER
        assert outcome.reply.code == 421
        assert outcome.phase.value == word.lower()


async def test_an_unasked_421_beside_a_reply_keeps_its_code() -> None:
    async with ScriptedRelay(offers=STEPWISE, MAIL="250 ok\n421 4.3.2 Closing down") as relay:
        outcome = await send(relay)
        assert (outcome.kind, outcome.reply.code) == (Kind.DEFER, 421)
        assert outcome.error_class == "relay_closing"


@both_ways
async def test_503_is_out_of_step_and_ends_the_connection(offers: Sequence[str]) -> None:
    async with ScriptedRelay(offers=offers, MAIL="503 5.5.1 Nested MAIL") as relay:
        session = await Session.open(settings(relay.port))
        outcome = await session.send(envelope(), Marks())
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "desync")
        assert not session.alive


# --- out of step ------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["MAIL", "RCPT", "DATA"])
async def test_a_coalesced_stray_reply_aborts(word: str) -> None:
    answers = {"MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go on"}
    answers[word] += "\n250 stray"
    async with ScriptedRelay(offers=STEPWISE, **answers) as relay:
        session = await Session.open(settings(relay.port))
        outcome = await session.send(envelope(), Marks())
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "desync")
        assert not session.alive
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
        assert relay.mails == []


async def test_a_stray_reply_among_pipelined_ones_never_turns_a_refusal_into_a_yes() -> None:
    async def mail(heard: Heard) -> str:
        await heard.reader.readline()
        await heard.reader.readline()
        await heard.say("250 ok\n250 stray\n550 5.1.1 No such user\n354 go on")
        heard.torso = await heard.reader.read()
        return "close"

    async with ScriptedRelay(MAIL=mail) as relay:
        outcome = await send(relay)
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "desync")
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
        assert relay.heard[0].torso == b""


@pytest.mark.parametrize("late", ["250 2.0.0 stray", "2", "nonsense"])
async def test_bytes_that_nobody_asked_for_end_an_idle_connection(late: str) -> None:
    async def queued(heard: Heard) -> None:
        await heard.say("250 2.0.0 Queued")
        await asyncio.sleep(0.05)
        await heard.say(late)

    async with ScriptedRelay(DOT=queued) as relay:
        session = await Session.open(settings(relay.port))
        assert (await session.send(envelope(), Marks())).kind is Kind.SENT
        assert session.alive
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
        assert not session.alive


async def test_a_stray_reply_beside_the_last_one_is_uncertain() -> None:
    """Which of the two answers the dot cannot be known."""
    async with ScriptedRelay(DOT="250 stray\n550 5.7.1 The real one") as relay:
        outcome = await send(relay)
        assert outcome.kind is Kind.UNCERTAIN


async def test_a_421_beside_the_last_reply_leaves_it_valid() -> None:
    marks = Marks()
    async with ScriptedRelay(DOT="250 2.0.0 Queued\n421 4.4.2 Enough for today") as relay:
        outcome = await send(relay, marks)
        assert outcome.kind is Kind.SENT
        assert marks.said == ["dot", "accepted"]


async def test_a_go_on_after_the_dot_is_uncertain() -> None:
    async with ScriptedRelay(DOT="354 go on") as relay:
        assert (await send(relay)).kind is Kind.UNCERTAIN


async def test_a_reply_in_pieces_is_one_reply() -> None:
    async def slowly(heard: Heard) -> None:
        for part in (b"25", b"0-2.0.0 Que", b"ued\r\n250", b" 2.0.0 really", b"\r", b"\n"):
            await heard.say(part)
            await asyncio.sleep(0.01)

    async with ScriptedRelay(DOT=slowly) as relay:
        outcome = await send(relay)
        assert outcome.kind is Kind.SENT
        assert outcome.reply.text == "2.0.0 Queued\n2.0.0 really"


async def test_endless_lines_are_cut_off() -> None:
    async def flood(heard: Heard) -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                await heard.say(b"250-more and more\r\n" * 100)

    async with ScriptedRelay(RCPT=flood, offers=STEPWISE) as relay:
        outcome = await send(relay)
        assert (outcome.kind, outcome.error_class, outcome.phase) == (
            Kind.DEFER,
            "desync",
            Phase.RCPT,
        )


# --- ends and waits ----------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("word", ["MAIL", "RCPT", "DATA"])
async def test_disconnect_before_the_dot_is_deferred(
    offers: Sequence[str], word: str, end: str
) -> None:
    marks = Marks()
    async with ScriptedRelay(offers=offers, **{word: end}) as relay:
        outcome = await send(relay, marks)
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "connection_lost")
        assert outcome.scope is Scope.CONNECTION
        if end == "close":  # a reset may overtake the replies before it
            assert outcome.phase.value == word.lower()
        assert marks.said == []


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_disconnect_after_dot_is_uncertain(end: str) -> None:
    marks = Marks()
    async with ScriptedRelay(DOT=end) as relay:
        outcome = await send(relay, marks)
        assert (outcome.kind, outcome.phase) == (Kind.UNCERTAIN, Phase.DOT)
        assert marks.said == ["dot"]
        assert relay.mails == [STUFFED]


async def test_half_a_reply_after_the_dot_is_uncertain() -> None:
    async def half(heard: Heard) -> str:
        await heard.say(b"250 2.0.0 Que")
        return "close"

    async with ScriptedRelay(DOT=half) as relay:
        assert (await send(relay)).kind is Kind.UNCERTAIN


async def test_a_close_right_behind_the_last_reply_does_not_matter() -> None:
    async def queued(heard: Heard) -> str:
        await heard.say("250 2.0.0 Queued")
        return "close"

    async with ScriptedRelay(DOT=queued) as relay:
        assert (await send(relay)).kind is Kind.SENT


@both_ways
@pytest.mark.parametrize("word", ["MAIL", "RCPT", "DATA"])
async def test_silence_before_the_dot_is_deferred(offers: Sequence[str], word: str) -> None:
    marks = Marks()
    async with ScriptedRelay(offers=offers, **{word: "hang"}) as relay:
        outcome = await send(relay, marks, command_timeout=0.2)
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "timeout")
        assert outcome.phase.value == word.lower()
        assert marks.said == []


async def test_silence_after_the_dot_is_uncertain_and_ends_the_connection() -> None:
    marks = Marks()
    async with ScriptedRelay(DOT="hang") as relay:
        outcome = await send(relay, marks, dot_timeout=0.2)
        assert (outcome.kind, outcome.error_class) == (Kind.UNCERTAIN, "no_reply_after_dot")
        assert marks.said == ["dot"]
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)


async def test_the_wait_after_the_dot_is_longer_than_for_a_command() -> None:
    async def slow(_: Heard) -> str:
        await asyncio.sleep(0.5)
        return "250 2.0.0 Queued"

    async with ScriptedRelay(DOT=slow) as relay:
        outcome = await send(relay, command_timeout=0.2, dot_timeout=5.0)
        assert outcome.kind is Kind.SENT


@both_ways
async def test_an_upload_has_time_by_its_size(offers: Sequence[str]) -> None:
    """A line that is slow for a large message is no dead line."""

    async def pauses(heard: Heard) -> str:
        heard.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await heard.say("354 go on")
        await asyncio.sleep(0.5)
        heard.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await heard.reader.readuntil(b"\r\n.\r\n")
        return "250 2.0.0 Queued"

    async with ScriptedRelay(offers=offers, DATA=pauses, rcvbuf=4096) as relay:
        assert (await send(relay, content=LARGE, command_timeout=0.2)).kind is Kind.SENT


async def stop_reading(heard: Heard) -> str:
    """Say 354 and take nothing, until the test lets go."""
    heard.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await heard.say("354 go on")
    await asyncio.sleep(0.6)
    heard.writer.transport.resume_reading()  # type: ignore[attr-defined]
    heard.torso = await heard.reader.read()
    return "close"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "SLOWEST_UPLOAD", 1e9)


@pytest.mark.usefixtures("impatient")
async def test_an_upload_that_times_out_never_delivers_later() -> None:
    """transport.close() would flush the rest, dot included (RFC 1047)."""
    marks = Marks()
    async with ScriptedRelay(DATA=stop_reading, rcvbuf=4096) as relay:
        outcome = await send(relay, marks, LARGE, command_timeout=0.2)
        assert (outcome.kind, outcome.error_class, outcome.phase) == (
            Kind.DEFER,
            "timeout",
            Phase.BODY,
        )
        assert marks.said == []
        await asyncio.wait_for(relay.heard[0].ended.wait(), 5)
        assert 0 < len(relay.heard[0].torso) < len(LARGE)
        assert b"\r\n.\r\n" not in relay.heard[0].torso


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["timeout", "cancel", "reset"])
async def test_a_dot_that_provably_never_left_is_deferred(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Body and dot in one write, the dot still in our buffer when the connection ends."""
    monkeypatch.setattr(session_module, "ONE_WRITE", len(LARGE) * 2)

    async def resets(heard: Heard) -> str:
        heard.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await heard.say("354 go on")
        await asyncio.sleep(0.2)
        return "reset"

    marks = Marks()
    script = resets if how == "reset" else stop_reading
    async with ScriptedRelay(DATA=script, rcvbuf=4096) as relay:
        session = await Session.open(
            settings(relay.port, dot_timeout=0.2 if how == "timeout" else 9)
        )
        task = asyncio.create_task(session.send(envelope(content=LARGE), marks))
        if how == "cancel":
            await asyncio.sleep(0.2)
            assert marks.said == ["dot"]
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            outcome = await task
            assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.BODY)
            assert marks.said == ["dot", "refused"]
        await asyncio.wait_for(relay.heard[0].ended.wait(), 5)
        assert b"\r\n.\r\n" not in relay.heard[0].torso


async def test_a_relay_that_hangs_up_but_reads_on_never_gets_the_dot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """asyncio answers an EOF by a close, which flushes."""
    monkeypatch.setattr(session_module, "ONE_WRITE", len(LARGE) * 2)

    async def hangs_up(heard: Heard) -> str:
        heard.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await heard.say("354 go on")
        await asyncio.sleep(0.1)
        heard.writer.write_eof()
        await asyncio.sleep(0.1)
        heard.writer.transport.resume_reading()  # type: ignore[attr-defined]
        heard.torso = await heard.reader.read()
        return "close"

    async with ScriptedRelay(DATA=hangs_up, rcvbuf=4096) as relay:
        outcome = await send(relay, content=LARGE)
        assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.BODY)
        await asyncio.wait_for(relay.heard[0].ended.wait(), 5)
        assert b"\r\n.\r\n" not in relay.heard[0].torso


async def test_a_large_message_arrives_whole_and_marks_its_dot_last() -> None:
    seen: list[int] = []
    async with ScriptedRelay(rcvbuf=65536) as relay:
        marks = Marks(at_dot=lambda: seen.append(len(relay.mails)))
        outcome = await send(relay, marks, LARGE, dot_timeout=30)
        assert outcome.kind is Kind.SENT
        assert marks.said == ["dot", "accepted"]
        assert relay.mails == [LARGE]


@pytest.mark.parametrize("dot", ["after the body", "in one write with it"])
@pytest.mark.parametrize(
    ("reply", "kind", "error_class"),
    [
        ("552 5.3.4 Message too big", Kind.FAIL, "too_large"),
        ("421 4.3.2 Going down", Kind.DEFER, "relay_closing"),
        ("250 2.0.0 Queued already", Kind.DEFER, "desync"),
    ],
)
async def test_an_answer_before_the_end_of_the_body_stops_the_upload(
    monkeypatch: pytest.MonkeyPatch, reply: str, kind: Kind, error_class: str, dot: str
) -> None:
    if dot == "in one write with it":
        monkeypatch.setattr(session_module, "ONE_WRITE", len(LARGE) * 2)

    async def impolite(heard: Heard) -> str:
        heard.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await heard.say("354 go on")
        await asyncio.sleep(0.1)
        await heard.say(reply)
        await asyncio.sleep(0.2)
        heard.writer.transport.resume_reading()  # type: ignore[attr-defined]
        heard.torso = await heard.reader.read()
        return "close"

    marks = Marks()
    async with ScriptedRelay(DATA=impolite, rcvbuf=4096) as relay:
        outcome = await send(relay, marks, LARGE)
        assert (outcome.kind, outcome.error_class, outcome.phase) == (kind, error_class, Phase.BODY)
        assert marks.said == ([] if dot == "after the body" else ["dot", "refused"])
        await asyncio.wait_for(relay.heard[0].ended.wait(), 5)
        assert b"\r\n.\r\n" not in relay.heard[0].torso


# --- stopping from outside -------------------------------------------------------------------


async def test_a_lost_lease_stops_before_the_dot() -> None:
    def lost() -> None:
        raise LeaseLost

    async with ScriptedRelay() as relay:
        outcome = await send(relay, Marks(at_dot=lost))
        assert (outcome.kind, outcome.error_class) == (Kind.UNTOUCHED, "lease_lost")
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
        assert relay.mails == []
        assert b"last" not in relay.heard[0].torso


async def test_a_write_that_fails_at_once_is_deferred() -> None:
    """The kernel refuses body and dot as a whole: the relay cannot have them."""
    async with ScriptedRelay() as relay:
        session = await Session.open(settings(relay.port))
        sock = session._wire.transport.get_extra_info("socket")  # type: ignore[union-attr]
        marks = Marks(at_dot=lambda: sock.shutdown(socket.SHUT_WR))
        outcome = await session.send(envelope(), marks)
        assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.BODY)
        assert marks.said == ["dot", "refused"]
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
        assert relay.mails == []


async def test_a_marker_that_fails_ends_the_connection() -> None:
    def broken() -> None:
        raise OSError("disk full")

    async with ScriptedRelay() as relay:
        with pytest.raises(OSError, match="disk full"):
            await send(relay, Marks(at_dot=broken))
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
        assert relay.mails == []


@both_ways
@pytest.mark.parametrize("word", ["MAIL", "RCPT", "DATA", "DOT"])
async def test_cancellation_aborts_and_is_raised(offers: Sequence[str], word: str) -> None:
    marks = Marks()
    async with ScriptedRelay(offers=offers, **{word: "hang"}) as relay:
        session = await Session.open(settings(relay.port))
        task = asyncio.create_task(session.send(envelope(), marks))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not session.alive
        assert marks.said == (["dot"] if word == "DOT" else [])
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
