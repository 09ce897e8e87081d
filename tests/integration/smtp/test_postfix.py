"""Against Debian's Postfix, with SASL and TLS: one test a fault, in Postfix's own words.

A server that we did not write, and its ways to refuse: each service below is one smtpd
with the settings that cause a fault. `test_sink.py` and `test_exim.py` are the others;
`scripted.py` is for what no proper server does.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from mailgate.config.relays import Relay
from mailgate.model.outcome import Kind, Outcome, Scope, Suppress
from mailgate.model.state import Phase
from mailgate.smtp.pool import Pool
from tests.integration.smtp.conftest import CONTENT, Authority, envelope, settings
from tests.integration.smtp.scripted import Marks
from tests.servers import Postfix, Sink

Make = Callable[..., Pool]

USER, PASSWORD = "gate@relay.example", "s3cret-geheim"
LOGIN = {"username": USER, "password_env": "UNUSED", "security": "starttls"}

_SUBMISSION = {
    "smtpd_tls_security_level": "encrypt",
    "smtpd_tls_auth_only": "yes",
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_tls_chain_files": "%(directory)s/good.pem",
    "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
}
_OPEN = {"smtpd_recipient_restrictions": "permit_mynetworks, reject"}
_SERVICES: dict[str, dict[str, str]] = {
    "submission": _SUBMISSION,
    "smtps": {**_SUBMISSION, "smtpd_tls_wrappermode": "yes"},
    "owned senders": {
        **_SUBMISSION,
        "smtpd_sender_login_maps": "texthash:%(directory)s/owners",
        "smtpd_sender_restrictions": "reject_sender_login_mismatch",
    },
    "sasl away": {**_SUBMISSION, "smtpd_sasl_path": "away"},
    "expired": {**_SUBMISSION, "smtpd_tls_chain_files": "%(directory)s/expired.pem"},
    "wrong host": {**_SUBMISSION, "smtpd_tls_chain_files": "%(directory)s/wrong-host.pem"},
    "self-signed": {**_SUBMISSION, "smtpd_tls_chain_files": "%(directory)s/self-signed.pem"},
    "stripped": {
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_tls_security_level": "none",
    },
    "broken tls": {**_SUBMISSION, "smtpd_tls_chain_files": "%(directory)s/nothing.pem"},
    "open": _OPEN,
    "users": {"smtpd_recipient_restrictions": "reject_unauth_destination, permit"},
    "access": {
        "smtpd_recipient_restrictions": "check_recipient_access texthash:%(directory)s/access,"
        " permit_mynetworks, reject",
    },
    "senders": {
        "smtpd_sender_restrictions": "check_sender_access texthash:%(directory)s/access",
        **_OPEN,
    },
    "small": {"message_size_limit": "3000", **_OPEN},
    "old": {
        "smtpd_discard_ehlo_keywords": "pipelining, size, 8bitmime, smtputf8, chunking, dsn",
        "message_size_limit": "3000",
        **_OPEN,
    },
    "full": {"queue_minfree": "1000000000000000", **_OPEN},
    "shut": {"smtpd_delay_reject": "no", "smtpd_client_restrictions": "reject"},
    "tls only": {**_OPEN, "smtpd_tls_security_level": "encrypt"},
    "crowded": {"smtpd_client_connection_count_limit": "1", **_OPEN},
    "hurried": {"smtpd_client_message_rate_limit": "1", **_OPEN},
    "impatient": {"smtpd_timeout": "1s", **_OPEN},
    "unforgiving": {
        "smtpd_hard_error_limit": "1",
        "smtpd_recipient_restrictions": "check_recipient_access texthash:%(directory)s/access,"
        " permit_mynetworks, reject",
    },
    "strict": {"cleanup_service_name": "strict", **_OPEN},
    "misconfigured": {
        "smtpd_recipient_restrictions": "check_policy_service inet:127.0.0.1:1, permit",
        "smtpd_policy_service_max_idle": "1s",
        "smtpd_policy_service_try_limit": "1",
        "smtpd_policy_service_retry_delay": "1s",
    },
    "milter away": {"smtpd_milters": "inet:127.0.0.1:1", **_OPEN},
    "soft": {
        "soft_bounce": "yes",
        "smtpd_recipient_restrictions": "reject_unauth_destination, permit",
    },
}
_MAIN = """\
virtual_alias_domains = users.example
virtual_alias_maps = inline:{ ann@users.example=ann@elsewhere.example }
"""
_ACCESS = """\
greylisted@example.net 450 4.7.1 Greylisted, try again in 10 minutes
too-fast@example.net 450 4.2.1 The user is receiving mail too quickly
full@example.net 452 4.2.2 Mailbox full
over-quota@example.net 552 5.2.2 Mailbox full
gone@example.net 550 5.1.1 User unknown
nowhere@example.net 550 5.1.2 Domain not found
null-mx@example.net 556 5.1.10 Recipient address has null MX
disabled@example.net 550 5.2.1 Mailbox disabled
blocked@example.net 550 5.7.1 Your host is listed, see the postmaster
bare@example.net 550 no
closing@example.net 421 4.3.2 Service is closing down
later@example.net DEFER
unsigned@example.net 550 5.7.26 Unauthenticated email is not accepted
stranger@example.com REJECT
"""
_HEADER_CHECKS = """\
/^Subject: spam/ REJECT 5.7.1 This looks like spam
/^Subject: later/ REJECT 4.7.1 Come back later
"""


@pytest.fixture(scope="module")
def next_hop(server_directory: Path) -> Iterator[Sink]:
    directory = server_directory / "next-hop"
    directory.mkdir()
    sink = Sink(directory)
    yield sink
    sink.stop()


@pytest.fixture(scope="module")
def postfix(server_directory: Path, authority: Authority, next_hop: Sink) -> Iterator[Postfix]:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    long_ago = yesterday - datetime.timedelta(days=9)
    directory = server_directory / "postfix"
    directory.mkdir()
    server = Postfix(
        directory,
        _SERVICES,
        main=_MAIN,
        files={
            "good.pem": authority.pem(),
            "expired.pem": authority.pem(not_before=long_ago, not_after=yesterday),
            "wrong-host.pem": authority.pem("mail.elsewhere.example"),
            "self-signed.pem": chain(trustme.CA().issue_cert("127.0.0.1")),
            "access": _ACCESS,
            "owners": f"owned@example.com {USER}\nboss@example.com boss@relay.example\n",
            "header_checks": _HEADER_CHECKS,
        },
        users={"gate": PASSWORD},
        next_port=next_hop.port,
    )
    yield server
    server.stop()


def chain(made: trustme.LeafCert) -> str:
    return made.private_key_and_cert_chain_pem.bytes().decode()


_SOURCES = itertools.count(1)


class Door:
    """One smtpd of Postfix, by the pool that mailgate itself would use."""

    def __init__(self, postfix: Postfix, authority: Authority, pool_for: Make) -> None:
        self._postfix = postfix
        self._authority = authority
        self._pool_for = pool_for
        #: By its address each test finds its own sessions in Postfix's log.
        self._source = f"127.0.9.{next(_SOURCES) % 250 + 2}"

    def relay(self, service: str, **more: Any) -> Relay:
        values = {"ca_file": self._authority.file, "source_address": self._source, **more}
        return settings(self._postfix.port(service), **values)

    def pool(self, service: str, password: str = PASSWORD, **more: Any) -> Pool:
        return self._pool_for(self.relay(service, **more), password)

    async def send(
        self,
        service: str,
        rcpt: str = "ann@example.net",
        *,
        mail_from: str = "bounces@example.com",
        content: bytes = CONTENT,
        password: str = PASSWORD,
        **more: Any,
    ) -> Outcome:
        pool = self.pool(service, password, **more)
        return await pool.deliver("main", envelope(rcpt, content, mail_from), Marks())

    async def said(self, work: Awaitable[Outcome]) -> tuple[Outcome, str]:
        """The outcome, and Postfix's own count of the session's commands."""
        before = self._sessions()
        outcome = await work
        deadline = time.monotonic() + 5
        while len(now := self._sessions()) == len(before):
            assert time.monotonic() < deadline, self._postfix.log()[-2000:]
            await asyncio.sleep(0.02)
        return outcome, now[-1]

    def _sessions(self) -> list[str]:
        return re.findall(rf"disconnect from \S+\[{self._source}\] (.*)", self._postfix.log())


@pytest.fixture
def door(postfix: Postfix, authority: Authority, pool_for: Make) -> Door:
    return Door(postfix, authority, pool_for)


def brief(outcome: Outcome) -> tuple[Kind, Phase, int, str]:
    return outcome.kind, outcome.phase, outcome.reply.code, outcome.error_class


# --- what goes well ---------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["plain", "login", "cram-md5"])
@pytest.mark.parametrize(("service", "security"), [("submission", "starttls"), ("smtps", "tls")])
async def test_mail_goes_through_tls_and_sasl(
    door: Door, service: str, security: str, mechanism: str
) -> None:
    outcome, said = await door.said(
        door.send(service, **{**LOGIN, "security": security, "auth": (mechanism,), "idle": 0.05})
    )
    assert outcome.kind is Kind.SENT
    assert "auth=1" in said
    assert ("starttls=1" in said) == (security == "starttls")


async def test_postfix_hands_on_the_bytes_that_were_sent(door: Door, next_hop: Sink) -> None:
    word = f"<{time.monotonic_ns()}@example.com>".encode()
    content = b"Message-ID: " + word + b"\r\nSubject: hello\r\n\r\n.dot\r\n..\r\nlast\r\n"
    assert (await door.send("open", content=content)).kind is Kind.SENT
    deadline = time.monotonic() + 10
    while not (found := [mail for mail in next_hop.mails() if word in mail]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    (mail,) = found
    assert mail.replace(b"\r\n", b"\n").partition(b"\n\n")[2].rstrip(b"\n") == b".dot\n..\nlast"


async def test_a_hundred_messages_share_a_few_connections(door: Door) -> None:
    pool = door.pool("submission", **LOGIN)
    many = (pool.deliver("main", envelope(f"u{n}@example.net"), Marks()) for n in range(100))
    assert {o.kind for o in await asyncio.gather(*many)} == {Kind.SENT}
    assert pool.stats()["main"].opened <= 4


async def test_a_relay_of_the_old_school_takes_mail_too(door: Door) -> None:
    """Neither PIPELINING nor SIZE nor 8BITMIME."""
    assert (await door.send("old")).kind is Kind.SENT


async def test_an_address_beyond_ascii_goes_where_smtputf8_is_offered(door: Door) -> None:
    assert (await door.send("open", "grün@example.net")).kind is Kind.SENT
    refused, said = await door.said(door.send("old", "grün@example.net", idle=0.05))
    assert (refused.kind, refused.error_class) == (Kind.FAIL, "smtputf8_not_offered")
    assert "mail=" not in said


# --- TLS: nothing secret leaves ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error_class"),
    [
        ("stripped", "starttls_not_offered"),
        ("expired", "tls_certificate"),
        ("wrong host", "tls_certificate"),
        ("self-signed", "tls_certificate"),
        ("broken tls", "tls_failed"),
    ],
)
async def test_a_tls_fault_defers_flags_the_relay_and_says_no_auth(
    door: Door, fault: str, error_class: str
) -> None:
    pool = door.pool(fault, **LOGIN)
    outcome, said = await door.said(pool.deliver("main", envelope(), Marks()))
    assert brief(outcome) == (Kind.DEFER, Phase.STARTTLS, 0, error_class)
    assert outcome.scope is Scope.RELAY
    stats = pool.stats()["main"]
    assert (stats.failures, stats.error_class) == (1, error_class)
    assert stats.backing_off > 0
    assert "auth" not in said
    assert "mail" not in said


async def test_a_relay_that_wants_tls_gets_no_mail_in_clear(door: Door) -> None:
    outcome = await door.send("tls only")
    assert brief(outcome) == (Kind.UNTOUCHED, Phase.MAIL, 530, "auth_required")
    assert outcome.scope is Scope.RELAY


# --- AUTH -------------------------------------------------------------------------------------


async def test_a_wrong_password_is_said_once_and_costs_no_attempt(door: Door) -> None:
    outcome, said = await door.said(door.send("submission", password="wrong", **LOGIN))
    assert brief(outcome) == (Kind.UNTOUCHED, Phase.AUTH, 535, "auth_refused")
    assert not outcome.counts
    assert "auth=0/1" in said


async def test_a_password_store_that_is_away_defers(door: Door) -> None:
    outcome = await door.send("sasl away", **LOGIN)
    assert brief(outcome) == (Kind.DEFER, Phase.AUTH, 454, "auth_temporary")
    assert (outcome.scope, outcome.retry_after) == (Scope.RELAY, 60)


async def test_without_a_login_the_relay_denies_and_no_address_is_blamed(door: Door) -> None:
    outcome = await door.send("users", "somebody@far.example")
    assert brief(outcome) == (Kind.FAIL, Phase.RCPT, 554, "relaying_denied")
    assert (outcome.scope, outcome.suppress) == (Scope.RELAY, Suppress.NEVER)


# --- the relay itself -------------------------------------------------------------------------


async def test_a_greeting_of_554_is_the_relays_fault(door: Door) -> None:
    outcome = await door.send("shut")
    assert brief(outcome) == (Kind.DEFER, Phase.GREETING, 554, "greeting_refused")
    assert outcome.scope is Scope.RELAY


async def test_too_many_connections_are_the_relays_limit(door: Door) -> None:
    pool = door.pool("crowded", max_connections=1)
    assert (await pool.deliver("main", envelope(), Marks())).kind is Kind.SENT
    outcome = await door.send("crowded")
    assert brief(outcome) == (Kind.DEFER, Phase.GREETING, 421, "too_many_connections")
    # One connection is all it takes, and one is enough for everything.
    assert (await pool.deliver("main", envelope(), Marks())).kind is Kind.SENT


async def test_a_full_disk_of_the_relay_defers(door: Door) -> None:
    outcome = await door.send("full")
    assert brief(outcome) == (Kind.DEFER, Phase.MAIL, 452, "relay_full")
    assert outcome.scope is Scope.RELAY


async def test_a_relay_that_is_misconfigured_defers(door: Door) -> None:
    outcome = await door.send("misconfigured")
    assert brief(outcome) == (Kind.DEFER, Phase.RCPT, 451, "relay_trouble")
    assert outcome.scope is Scope.RELAY


async def test_a_milter_that_is_away_defers(door: Door) -> None:
    outcome = await door.send("milter away")
    assert (outcome.kind, outcome.reply.code) == (Kind.DEFER, 451)
    assert outcome.suppress is Suppress.NEVER


async def test_a_connection_that_postfix_has_given_up_is_replaced_unseen(door: Door) -> None:
    """421 4.4.2 after ``smtpd_timeout``, while the connection was idle."""
    pool = door.pool("impatient", max_connections=1)
    assert (await pool.deliver("main", envelope(), Marks())).kind is Kind.SENT
    await asyncio.sleep(1.3)
    assert (await pool.deliver("main", envelope(), Marks())).kind is Kind.SENT
    assert pool.stats()["main"].opened == 2


async def test_421_after_too_many_errors_is_no_fault_of_the_next_message(door: Door) -> None:
    pool = door.pool("unforgiving", max_connections=1)
    gone = await pool.deliver("main", envelope("gone@example.net"), Marks())
    assert gone.reply.code in (421, 550)
    assert gone.kind in (Kind.BOUNCE, Kind.DEFER)
    assert (await pool.deliver("main", envelope(), Marks())).kind is Kind.SENT


# --- the message ------------------------------------------------------------------------------


async def test_a_message_above_size_is_not_offered(door: Door) -> None:
    outcome, said = await door.said(
        door.send("small", content=CONTENT + b"x\r\n" * 2000, idle=0.05)
    )
    assert brief(outcome) == (Kind.FAIL, Phase.MAIL, 0, "too_large")
    assert (outcome.scope, outcome.suppress) == (Scope.MESSAGE, Suppress.NEVER)
    assert "mail=" not in said


async def test_a_message_above_a_size_that_was_not_announced_fails_after_the_dot(
    door: Door,
) -> None:
    outcome = await door.send("old", content=CONTENT + b"x\r\n" * 2000)
    assert brief(outcome) == (Kind.FAIL, Phase.DOT, 552, "too_large")
    assert outcome.suppress is Suppress.NEVER


async def test_content_that_is_refused_blames_no_address(door: Door) -> None:
    outcome = await door.send("strict", content=b"Subject: spam\r\n\r\nbuy\r\n")
    assert (outcome.kind, outcome.phase, outcome.reply.code) == (Kind.FAIL, Phase.DOT, 550)
    assert outcome.suppress is Suppress.NEVER


@pytest.mark.parametrize(
    ("service", "sender", "auth"),
    [("senders", "stranger@example.com", {}), ("owned senders", "boss@example.com", LOGIN)],
)
async def test_a_sender_that_is_not_ours_is_the_senders_fault(
    door: Door, service: str, sender: str, auth: dict[str, str]
) -> None:
    outcome = await door.send(service, mail_from=sender, **auth)
    assert (outcome.kind, outcome.error_class) == (Kind.FAIL, "sender_refused")
    assert (outcome.scope, outcome.suppress) == (Scope.SENDER, Suppress.NEVER)


# --- the recipient ----------------------------------------------------------------------------


async def test_a_user_that_postfix_does_not_know_bounces_and_is_suppressed(door: Door) -> None:
    outcome = await door.send("users", "nobody@users.example")
    assert brief(outcome) == (Kind.BOUNCE, Phase.RCPT, 550, "unknown_address")
    assert outcome.suppress is Suppress.NOW
    assert (await door.send("users", "ann@users.example")).kind is Kind.SENT


async def test_soft_bounce_makes_a_refusal_one_for_now(door: Door) -> None:
    outcome = await door.send("soft", "nobody@users.example")
    assert (outcome.kind, outcome.phase, outcome.reply.code) == (Kind.DEFER, Phase.RCPT, 450)
    assert outcome.suppress is Suppress.NEVER


async def test_the_relays_own_message_rate_defers(door: Door) -> None:
    pool = door.pool("hurried", max_connections=1)
    outcomes = [await pool.deliver("main", envelope(), Marks()) for _ in range(2)]
    assert [o.kind for o in outcomes] == [Kind.SENT, Kind.DEFER]
    assert outcomes[1].reply.code // 100 == 4
    assert outcomes[1].suppress is Suppress.NEVER


@pytest.mark.parametrize(
    ("who", "kind", "error_class", "suppress"),
    [
        ("greylisted", Kind.DEFER, "greylisted", False),
        ("too-fast", Kind.DEFER, "recipient_rate", False),
        ("full", Kind.DEFER, "mailbox_full", False),
        ("later", Kind.DEFER, "recipient_deferred", False),
        ("closing", Kind.DEFER, "relay_closing", False),
        ("gone", Kind.BOUNCE, "unknown_address", True),
        ("nowhere", Kind.BOUNCE, "unknown_domain", True),
        ("null-mx", Kind.BOUNCE, "no_mail_domain", True),
        ("disabled", Kind.BOUNCE, "disabled", True),
        ("blocked", Kind.FAIL, "policy", False),
        ("bare", Kind.FAIL, "policy", False),
        ("unsigned", Kind.FAIL, "sender_unauthenticated", False),
    ],
)
async def test_a_refusal_at_rcpt_is_read_as_what_it_is(
    door: Door, who: str, kind: Kind, error_class: str, suppress: bool
) -> None:
    """``_ACCESS`` has the words; Postfix puts its own before them."""
    outcome = await door.send("access", f"{who}@example.net")
    assert (outcome.kind, outcome.phase, outcome.error_class) == (kind, Phase.RCPT, error_class)
    assert (outcome.suppress is Suppress.NOW) is suppress
    if who == "greylisted":
        assert outcome.retry_after == 600  # "in 10 minutes"
    if who == "closing":
        assert outcome.scope is Scope.CONNECTION


async def test_a_full_mailbox_for_good_bounces(door: Door) -> None:
    outcome = await door.send("access", "over-quota@example.net")
    assert brief(outcome) == (Kind.BOUNCE, Phase.RCPT, 552, "mailbox_full")
