"""Greeting, EHLO, TLS and AUTH: a failure is the relay's, and no secret leaves in clear."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as Server
from aiosmtpd.smtp import AuthResult, LoginPassword

from mailgate.config.load import resolve_password
from mailgate.model.outcome import Kind, Outcome, Scope
from mailgate.model.state import Phase
from mailgate.smtp.opening import SetupFailed, open_wire, read_offers, tls_context
from mailgate.smtp.session import Session
from mailgate.smtp.wire import Wire
from tests.integration.smtp.conftest import Authority, envelope, settings
from tests.integration.smtp.scripted import Heard, Marks, ScriptedRelay
from tests.servers.process import free_port

LOGIN = {"username": "gate", "password_env": "UNUSED", "security": "tls"}
PASSWORD = "s3cret-geheim"


async def setup_fails(relay: ScriptedRelay | int, **more: Any) -> Outcome:
    section = settings(relay if isinstance(relay, int) else relay.port, **more)
    with pytest.raises(SetupFailed) as failure:
        await open_wire(section, tls_context(section), PASSWORD, None)
    return failure.value.outcome


def no_secret_in(relay: ScriptedRelay) -> bool:
    said = "\n".join(line for heard in relay.heard for line in heard.commands)
    words = [PASSWORD, base64.b64encode(PASSWORD.encode()).decode()[:8], "AUTH", "gate"]
    return not any(word in said for word in words)


# --- connect, greeting, EHLO ------------------------------------------------------------


async def test_connection_refused_is_the_relays_fault() -> None:
    outcome = await setup_fails(free_port())
    assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.CONNECT)
    assert (outcome.error_class, outcome.scope) == ("connect_failed", Scope.RELAY)


async def test_an_unknown_host_is_a_dns_failure() -> None:
    outcome = await setup_fails(25, host="no-such-host.invalid")
    assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "dns_failed")
    assert outcome.scope is Scope.RELAY


@pytest.mark.parametrize("greeting", ["421 4.3.2 Not now", "451 Later", "554 5.7.1 Not you"])
async def test_a_refusing_greeting_is_deferred_whatever_its_code(greeting: str) -> None:
    async with ScriptedRelay(GREETING=greeting) as relay:
        outcome = await setup_fails(relay)
        assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.GREETING)
        assert (outcome.scope, str(outcome.reply)) == (Scope.RELAY, greeting)


@pytest.mark.parametrize("end", ["hang", "close", "reset", b"SSH-2.0-OpenSSH_9.2\r\n"])
async def test_no_proper_greeting_is_deferred(end: str) -> None:
    async with ScriptedRelay(GREETING=end) as relay:
        outcome = await setup_fails(relay, command_timeout=0.2)
        assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.GREETING)
        assert outcome.error_class in ("timeout", "connection_lost", "desync")
        assert outcome.scope is Scope.RELAY
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)


async def test_a_handshake_that_hangs_is_given_up() -> None:
    async with ScriptedRelay(GREETING="hang") as relay:
        outcome = await setup_fails(relay, security="tls", connect_timeout=0.3)
        assert (outcome.phase, outcome.error_class) == (Phase.CONNECT, "connect_timeout")


async def test_ehlo_refused_falls_back_to_helo_where_nothing_needs_ehlo() -> None:
    async with ScriptedRelay(EHLO="502 5.5.1 What?") as relay:
        session = await Session.open(settings(relay.port))
        assert (await session.send(envelope(), Marks())).kind is Kind.SENT
        assert relay.heard[0].commands[:3] == [
            "EHLO client.example",
            "HELO client.example",
            "MAIL FROM:<bounces@example.com>",
        ]
        session.abort()


async def test_ehlo_refused_never_falls_back_to_helo_where_tls_is_required() -> None:
    async with ScriptedRelay(EHLO="502 5.5.1 What?") as relay:
        outcome = await setup_fails(relay, security="starttls")
        assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.EHLO)
        assert relay.heard[0].verbs == ["EHLO"]


async def test_without_a_name_ehlo_says_one_that_is_legal() -> None:
    async with ScriptedRelay() as relay:
        await Session.open(settings(relay.port, hostname=None), hostname=None)
        said = relay.heard[0].commands[0].removeprefix("EHLO ")
        assert said == "[127.0.0.1]" or "." in said.strip(".")
        relay.heard[0].writer.close()


@pytest.mark.parametrize(
    ("text", "size", "auth"),
    [
        ("relay\nSIZE 100\nAUTH PLAIN LOGIN", 100, {"plain", "login"}),
        ("relay\nsize\nAUTH=LOGIN", 0, {"login"}),
        ("relay", 0, set()),
        ("SIZE 5", 0, set()),  # the first line is the relay's name, not an offer
        ("relay\nSIZE " + "9" * 400, 0, set()),
    ],
)
def test_offers_are_read_from_ehlo(text: str, size: int, auth: set[str]) -> None:
    offers = read_offers(text)
    assert (offers.size, offers.auth) == (size, auth)


# --- TLS ------------------------------------------------------------------------------------


async def test_starttls_stripped_is_deferred_and_nothing_goes_on_in_clear() -> None:
    async with ScriptedRelay(offers=("AUTH PLAIN LOGIN",)) as relay:
        outcome = await setup_fails(relay, **{**LOGIN, "security": "starttls"})
        assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.STARTTLS)
        assert (outcome.error_class, outcome.scope) == ("starttls_not_offered", Scope.RELAY)
        assert no_secret_in(relay)


async def test_starttls_refused_is_deferred() -> None:
    async with ScriptedRelay(
        offers=("STARTTLS", "AUTH PLAIN"), STARTTLS="454 4.7.0 TLS not available"
    ) as relay:
        outcome = await setup_fails(relay, **{**LOGIN, "security": "starttls"})
        assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.STARTTLS)
        assert outcome.reply.enhanced == "4.7.0"
        assert no_secret_in(relay)


async def test_bytes_injected_behind_the_starttls_reply_end_the_connection() -> None:
    async with ScriptedRelay(
        offers=("STARTTLS", "AUTH PLAIN"), STARTTLS="220 Ready\n250-evil\n250 AUTH PLAIN"
    ) as relay:
        outcome = await setup_fails(relay, **{**LOGIN, "security": "starttls"})
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "desync")
        assert no_secret_in(relay)


async def test_offers_made_before_tls_count_for_nothing(authority: Authority) -> None:
    """RFC 3207: PIPELINING offered in clear only is not used."""

    async def ehlo(heard: Heard) -> str:
        secure = heard.writer.get_extra_info("ssl_object") is not None
        return "250 relay" if secure else "250-relay\n250-PIPELINING\n250 STARTTLS"

    context = authority.server()
    async with ScriptedRelay(starttls=context, EHLO=ehlo) as relay:
        section = settings(relay.port, security="starttls", ca_file=authority.file)
        session = await Session.open(section, tls_context(section))
        assert not session.offers.pipelining
        assert (await session.send(envelope(), Marks())).kind is Kind.SENT
        session.abort()


def _expired(authority: Authority) -> ssl.SSLContext:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    return authority.server(not_after=yesterday, not_before=yesterday - datetime.timedelta(days=9))


def _self_signed(_: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def _wrong_host(authority: Authority) -> ssl.SSLContext:
    return authority.server("mail.elsewhere.example")


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize("fault", [_expired, _self_signed, _wrong_host])
async def test_a_bad_certificate_gets_no_auth_byte(
    authority: Authority, fault: Any, security: str
) -> None:
    context = fault(authority)
    way = {"tls": context} if security == "tls" else {"starttls": context}
    async with ScriptedRelay(offers=("AUTH PLAIN LOGIN",), **way) as relay:
        section = {**LOGIN, "security": security, "ca_file": authority.file}
        outcome = await setup_fails(relay, **section)
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "tls_certificate")
        assert outcome.scope is Scope.RELAY
        assert no_secret_in(relay)


async def test_verify_false_takes_any_certificate(authority: Authority) -> None:
    async with ScriptedRelay(tls=_self_signed(authority)) as relay:
        section = settings(relay.port, security="tls", verify=False)
        session = await Session.open(section, tls_context(section))
        assert (await session.send(envelope(), Marks())).kind is Kind.SENT
        session.abort()


async def test_disconnect_after_dot_is_uncertain_also_under_tls(authority: Authority) -> None:
    async with ScriptedRelay(tls=authority.server(), DOT="close") as relay:
        section = settings(relay.port, security="tls", ca_file=authority.file)
        session = await Session.open(section, tls_context(section))
        assert (await session.send(envelope(), Marks())).kind is Kind.UNCERTAIN
        assert len(relay.mails) == 1


async def test_an_upload_that_times_out_never_delivers_later_under_tls(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailgate.smtp.session.SLOWEST_UPLOAD", 1e9)
    content = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 120_000

    async def stops(heard: Heard) -> str:
        transport = heard.writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]
        await heard.say("354 go on")
        await asyncio.sleep(0.6)
        transport.resume_reading()  # type: ignore[attr-defined]
        heard.torso = await heard.reader.read()
        return "close"

    async with ScriptedRelay(tls=authority.server(), DATA=stops, rcvbuf=4096) as relay:
        section = settings(relay.port, security="tls", ca_file=authority.file, command_timeout=0.2)
        session = await Session.open(section, tls_context(section))
        outcome = await session.send(envelope(content=content), Marks())
        assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.BODY)
        await asyncio.wait_for(relay.heard[0].ended.wait(), 5)
        assert b"\r\n.\r\n" not in relay.heard[0].torso


async def test_a_greeting_in_clear_is_never_taken_for_one_under_tls() -> None:
    async with ScriptedRelay(EHLO="250 relay") as relay:
        outcome = await setup_fails(relay, security="tls", connect_timeout=0.5)
        assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.CONNECT)
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
        assert "EHLO" not in relay.heard[0].verbs


async def test_a_greeting_injected_before_tls_is_not_believed(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_tls = Wire.encrypt

    async def late(wire: Wire, *arguments: Any) -> None:
        await asyncio.sleep(0.1)  # time for the injected bytes to arrive
        await begin_tls(wire, *arguments)

    monkeypatch.setattr(Wire, "encrypt", late)

    async def greet(heard: Heard) -> None:
        await heard.say("220 in clear")
        await heard.writer.start_tls(authority.server())

    async with ScriptedRelay(GREETING=greet) as relay:
        outcome = await setup_fails(relay, security="tls", ca_file=authority.file)
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "desync")
        assert "EHLO" not in relay.heard[0].verbs


# --- AUTH -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["535 5.7.8", "534 5.7.9", "538 5.7.11", "530 5.7.0", "504 5.5.4"])
async def test_auth_refused_costs_no_attempt_and_is_tried_once(
    authority: Authority, code: str
) -> None:
    async with ScriptedRelay(
        offers=("AUTH PLAIN LOGIN CRAM-MD5",), tls=authority.server(), AUTH=f"{code} No"
    ) as relay:
        outcome = await setup_fails(relay, **LOGIN, ca_file=authority.file)
        assert (outcome.kind, outcome.error_class) == (Kind.UNTOUCHED, "auth_refused")
        assert outcome.scope is Scope.RELAY
        assert not outcome.counts
        assert relay.heard[0].verbs == ["EHLO", "AUTH"]


@pytest.mark.parametrize("code", ["454 4.7.0", "432 4.7.12", "421 4.3.2"])
async def test_auth_that_fails_for_now_is_deferred(authority: Authority, code: str) -> None:
    async with ScriptedRelay(
        offers=("AUTH PLAIN",), tls=authority.server(), AUTH=f"{code} Later"
    ) as relay:
        outcome = await setup_fails(relay, **LOGIN, ca_file=authority.file)
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "auth_temporary")


@pytest.mark.parametrize("offers", [(), ("AUTH GSSAPI NTLM",)])
async def test_auth_without_a_common_mechanism_says_nothing(
    authority: Authority, offers: tuple[str, ...]
) -> None:
    async with ScriptedRelay(offers=offers, tls=authority.server()) as relay:
        outcome = await setup_fails(relay, **LOGIN, ca_file=authority.file)
        assert (outcome.kind, outcome.error_class) == (Kind.UNTOUCHED, "auth_unavailable")
        assert no_secret_in(relay)


async def test_a_challenge_that_is_not_base64_is_out_of_step(authority: Authority) -> None:
    async with ScriptedRelay(
        offers=("AUTH CRAM-MD5",), tls=authority.server(), AUTH="334 \x01?"
    ) as relay:
        outcome = await setup_fails(relay, **LOGIN, auth=("cram-md5",), ca_file=authority.file)
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "desync")


class Mailbox:
    """What aiosmtpd hands over."""

    def __init__(self) -> None:
        self.received: list[tuple[str, list[str], bytes]] = []
        self.tried: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, received: Any) -> str:
        self.received.append((received.mail_from, received.rcpt_tos, received.content))
        return "250 2.0.0 Taken"

    def check(self, *arguments: Any) -> AuthResult:
        mechanism, data = arguments[3], arguments[4]
        self.tried.append(mechanism)
        good = isinstance(data, LoginPassword) and data == LoginPassword(b"gate", PASSWORD.encode())
        return AuthResult(success=good, handled=good)


@pytest.fixture
def submission(authority: Authority) -> Iterator[tuple[Mailbox, int]]:
    """aiosmtpd as a submission server: STARTTLS and AUTH required."""
    mailbox = Mailbox()

    class Submission(Controller):
        def factory(self) -> Server:
            return Server(
                self.handler,
                tls_context=authority.server(),
                require_starttls=True,
                auth_required=True,
                authenticator=mailbox.check,
            )

    controller = Submission(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield mailbox, controller.port
    controller.stop()


@pytest.mark.parametrize("mechanism", ["plain", "login"])
async def test_a_message_goes_through_starttls_and_auth(
    submission: tuple[Mailbox, int], authority: Authority, mechanism: str
) -> None:
    mailbox, port = submission
    login = {**LOGIN, "security": "starttls", "auth": (mechanism,)}
    section = settings(port, **login, ca_file=authority.file)
    session = await Session.open(section, tls_context(section), password=PASSWORD)
    assert (await session.send(envelope(), Marks())).kind is Kind.SENT
    await session.quit()
    assert mailbox.tried == [mechanism.upper()]
    ((mail_from, rcpt_tos, content),) = mailbox.received
    assert (mail_from, rcpt_tos) == ("bounces@example.com", ["ann@example.net"])
    assert content == envelope().content


async def test_a_wrong_password_is_tried_once(
    submission: tuple[Mailbox, int], authority: Authority
) -> None:
    mailbox, port = submission
    login = {**LOGIN, "security": "starttls", "auth": ("login", "plain")}
    section = settings(port, **login, ca_file=authority.file)
    with pytest.raises(SetupFailed) as failure:
        await Session.open(section, tls_context(section), password="wrong")
    assert failure.value.outcome.kind is Kind.UNTOUCHED
    assert failure.value.outcome.reply.code == 535
    assert mailbox.tried == ["LOGIN"]


async def test_cram_md5_answers_the_challenge(authority: Authority) -> None:
    """The example of RFC 2195 section 2."""
    challenge = "PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"
    answer = "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"

    async def auth(heard: Heard) -> str:
        await heard.say(f"334 {challenge}")
        said = (await heard.reader.readline()).decode().strip()
        return "235 2.7.0 Ok" if said == answer else "535 5.7.8 No"

    async with ScriptedRelay(
        offers=("AUTH PLAIN CRAM-MD5",), tls=authority.server(), AUTH=auth
    ) as relay:
        login = {**LOGIN, "username": "tim", "auth": ("cram-md5", "plain")}
        section = settings(relay.port, **login, ca_file=authority.file)
        session = await Session.open(section, tls_context(section), password="tanstaaftanstaaf")
        assert session.alive
        session.abort()


# --- XOAUTH2 --------------------------------------------------------------------------------

OAUTH = {**LOGIN, "password_env": None, "token_file": "unused", "auth": ("xoauth2",)}
#: Google's own example: user and token, and what goes on the wire.
USER, TOKEN = "someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
RESPONSE = (
    "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSF"
    "JoZG1semRHRXVZMjl0Q2cBAQ=="
)


class TokenServer:
    """Takes one token after another, as a provider does."""

    def __init__(self, good: str) -> None:
        self.good = good
        self.lines: list[str] = []

    async def auth(self, heard: Heard) -> str:
        said = heard.commands[-1].removeprefix("AUTH XOAUTH2").strip()
        self.lines.append(heard.commands[-1])
        if not said:
            await heard.say("334 ")
            said = await self._next(heard)
        if base64.b64decode(said).decode().endswith(f"\x01auth=Bearer {self.good}\x01\x01"):
            return "235 2.7.0 Accepted"
        await heard.say("334 " + base64.b64encode(b'{"status":"400","scope":"mail"}').decode())
        if await self._next(heard) != "":
            return "501 5.5.2 That was not empty"
        return "535 5.7.8 Username and Password not accepted"

    async def _next(self, heard: Heard) -> str:
        self.lines.append((await heard.reader.readline()).decode().rstrip("\r\n"))
        return self.lines[-1]


async def test_xoauth2_says_user_and_token(authority: Authority) -> None:
    server = TokenServer(TOKEN)
    async with ScriptedRelay(
        offers=("AUTH LOGIN PLAIN XOAUTH2",), tls=authority.server(), AUTH=server.auth
    ) as relay:
        section = settings(relay.port, **{**OAUTH, "username": USER, "ca_file": authority.file})
        session = await Session.open(section, tls_context(section), password=lambda: TOKEN)
        assert server.lines == [f"AUTH XOAUTH2 {RESPONSE}"]
        assert (await session.send(envelope(), Marks())).kind is Kind.SENT
        session.abort()


async def test_a_long_token_waits_to_be_asked_for(authority: Authority) -> None:
    """RFC 4954 section 4: a command has at most 512 bytes; Microsoft's tokens have 2,000."""
    token = "eyJ0" * 500
    server = TokenServer(token)
    async with ScriptedRelay(
        offers=("AUTH XOAUTH2",), tls=authority.server(), AUTH=server.auth
    ) as relay:
        section = settings(relay.port, **OAUTH, ca_file=authority.file)
        session = await Session.open(section, tls_context(section), password=lambda: token)
        assert server.lines[0] == "AUTH XOAUTH2"
        assert len(server.lines) == 2
        session.abort()


async def test_a_refused_token_is_told_why_by_a_challenge_that_gets_an_empty_line(
    authority: Authority,
) -> None:
    server = TokenServer("the new one")
    async with ScriptedRelay(
        offers=("AUTH XOAUTH2 PLAIN",), tls=authority.server(), AUTH=server.auth
    ) as relay:
        outcome = await setup_fails(relay, **OAUTH, ca_file=authority.file)
        assert (outcome.kind, outcome.error_class) == (Kind.UNTOUCHED, "auth_refused")
        assert outcome.reply.code == 535
        assert not outcome.counts
        assert server.lines[1:] == [""]
        assert relay.heard[0].verbs == ["EHLO", "AUTH"]


async def test_the_token_is_read_again_for_every_login(
    authority: Authority, tmp_path: Path
) -> None:
    """A token lives for an hour: what is in the file when the connection is made counts."""
    server = TokenServer("first")
    file = tmp_path / "token"
    file.write_text("first\n")
    async with ScriptedRelay(
        offers=("AUTH XOAUTH2",), tls=authority.server(), AUTH=server.auth
    ) as relay:
        section = settings(relay.port, **{**OAUTH, "token_file": file, "ca_file": authority.file})
        secret = resolve_password(section, {})
        tls = tls_context(section)
        (await Session.open(section, tls, password=secret)).abort()
        server.good = "second"
        with pytest.raises(SetupFailed):
            await Session.open(section, tls, password=secret)
        file.write_text("second\n")
        (await Session.open(section, tls, password=secret)).abort()
        file.unlink()
        with pytest.raises(SetupFailed) as failure:
            await Session.open(section, tls, password=secret)
        outcome = failure.value.outcome
        assert (outcome.kind, outcome.error_class) == (Kind.UNTOUCHED, "token_unavailable")
        assert outcome.scope is Scope.RELAY
        assert relay.heard[-1].verbs == ["EHLO"]


async def test_a_token_that_hangs_in_its_file_system_is_given_up(authority: Authority) -> None:
    async with ScriptedRelay(offers=("AUTH XOAUTH2",), tls=authority.server()) as relay:
        section = settings(
            relay.port, **{**OAUTH, "ca_file": authority.file, "command_timeout": 0.1}
        )
        released = threading.Event()
        with pytest.raises(SetupFailed) as failure:
            await Session.open(
                section, tls_context(section), password=lambda: str(released.wait(5))
            )
        released.set()
        assert failure.value.outcome.error_class == "token_unavailable"


async def test_a_token_is_never_said_as_a_password(authority: Authority) -> None:
    """The mechanisms are pinned: a relay that offers others gets nothing."""
    async with ScriptedRelay(offers=("AUTH PLAIN LOGIN",), tls=authority.server()) as relay:
        outcome = await setup_fails(relay, **OAUTH, ca_file=authority.file)
        assert (outcome.kind, outcome.error_class) == (Kind.UNTOUCHED, "auth_unavailable")
        assert relay.heard[0].verbs == ["EHLO"]


async def test_the_order_of_the_configuration_chooses_not_the_relays(
    authority: Authority,
) -> None:
    async with ScriptedRelay(
        offers=("AUTH CRAM-MD5 PLAIN LOGIN",), tls=authority.server(), AUTH="535 5.7.8 No"
    ) as relay:
        await setup_fails(relay, **LOGIN, auth=("login", "plain"), ca_file=authority.file)
        assert relay.heard[0].commands[1].startswith("AUTH LOGIN ")


# --- where from -----------------------------------------------------------------------------


async def test_connections_come_from_the_source_address() -> None:
    async with ScriptedRelay() as relay:
        (await Session.open(settings(relay.port, source_address="127.0.0.9"))).abort()
        assert relay.heard[0].writer.get_extra_info("peername")[0] == "127.0.0.9"


async def test_a_source_address_that_is_not_ours_is_a_clear_fault_of_the_relay() -> None:
    async with ScriptedRelay() as relay:
        outcome = await setup_fails(relay, source_address="192.0.2.1")
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "connect_failed")
        assert "192.0.2.1" in outcome.reply.text
        assert relay.heard == []


async def test_cancelled_while_connecting_leaves_no_connection() -> None:
    async with ScriptedRelay(EHLO="hang") as relay:
        task = asyncio.create_task(Session.open(settings(relay.port)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
