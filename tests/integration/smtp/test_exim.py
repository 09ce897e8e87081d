"""Against Debian's Exim, in its own words: a second server that we did not write.

Exim says no enhanced codes and answers in several lines: what it means has to be read
from the words and the phase.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailgate.model.outcome import Kind, Outcome, Scope, Suppress
from mailgate.model.state import Phase
from mailgate.smtp.pool import Pool
from tests.integration.smtp.conftest import CONTENT, Authority, envelope, settings
from tests.integration.smtp.scripted import Marks
from tests.servers import Exim

Make = Callable[..., Pool]
Send = Callable[..., Awaitable[Outcome]]

USER, PASSWORD = "gate", "s3cret-geheim"
LOGIN = {"username": USER, "password_env": "UNUSED", "security": "starttls"}

_MAIN = """\
tls_certificate = %(directory)s/server.pem
tls_privatekey = %(directory)s/server.pem
tls_advertise_hosts = *
message_size_limit = 20K
smtp_accept_max_per_connection = 5
"""
_ACL = """\
check_mail:
  accept
check_rcpt:
  defer local_parts = later
  deny local_parts = forbidden
  deny local_parts = blocked
       message = Your host is listed: $sender_host_address
  drop local_parts = dropped
       message = Enough of this
  deny senders = *@unsure.example.net
       !verify = sender
  defer condition = ${if eq{$local_part}{broken}{${lookup{x}lsearch{/no/such/file}}}{no}}
  deny !domains = +served
       message = relay not permitted
  require verify = recipient
  accept
check_data:
  deny condition = ${if match{$header_subject:}{spam}}
  defer condition = ${if match{$header_subject:}{later}}
  accept
"""
_AUTHENTICATORS = """\
PLAIN:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{gate}}{eq{$auth3}{s3cret-geheim}}}}
  server_set_id = $auth2
LOGIN:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if eq{$auth1}{away}{${lookup{x}lsearch{/no/such/file}}}\
                     {${if and{{eq{$auth1}{gate}}{eq{$auth2}{s3cret-geheim}}}}}}
  server_set_id = $auth1
CRAM:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${if eq{$auth1}{gate}{s3cret-geheim}fail}
  server_set_id = $auth1
"""


@pytest.fixture(scope="module")
def exim(server_directory: Path, authority: Authority) -> Iterator[Exim]:
    server = Exim(
        server_directory / "exim",
        main=_MAIN,
        acl=_ACL,
        authenticators=_AUTHENTICATORS,
        files={"server.pem": authority.pem()},
    )
    yield server
    server.stop()


@pytest.fixture(scope="module")
def poor_exim(server_directory: Path) -> Iterator[Exim]:
    """One connection at most, no patience, no room, and a certificate that is not there."""
    server = Exim(
        server_directory / "poor-exim",
        main="tls_certificate = %(directory)s/nothing.pem\ntls_advertise_hosts = *\n"
        "check_spool_space = 500000G\nsmtp_accept_max = 1\nsmtp_receive_timeout = 1s\n",
        acl=_ACL,
    )
    yield server
    server.stop()


@pytest.fixture
def send(exim: Exim, authority: Authority, pool_for: Make) -> Send:
    async def send(
        rcpt: str = "ann@example.net",
        *,
        mail_from: str = "bounces@example.com",
        content: bytes = CONTENT,
        password: str = PASSWORD,
        **more: Any,
    ) -> Outcome:
        relay = settings(exim.port, ca_file=authority.file, **more)
        pool = pool_for(relay, password)
        return await pool.deliver("main", envelope(rcpt, content, mail_from), Marks())

    return send


def brief(outcome: Outcome) -> tuple[Kind, Phase, int, str]:
    return outcome.kind, outcome.phase, outcome.reply.code, outcome.error_class


@pytest.mark.parametrize("mechanism", ["plain", "login", "cram-md5"])
async def test_mail_goes_through_tls_and_auth(send: Send, mechanism: str) -> None:
    assert (await send(**LOGIN, auth=(mechanism,))).kind is Kind.SENT


async def test_exim_hands_on_the_bytes_that_were_sent(send: Send, exim: Exim) -> None:
    word = str(time.monotonic_ns()).encode()
    content = b"Subject: " + word + b"\r\n\r\n.dot\r\n..\r\nlast\r\n"
    assert (await send(content=content)).kind is Kind.SENT
    deadline = time.monotonic() + 10
    while not (found := [mail for mail in exim.mails() if word in mail]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert found[0].endswith(b"\nSubject: " + word + b"\n\n.dot\n..\nlast\n")


@pytest.mark.parametrize(
    ("who", "kind", "code", "error_class", "scope"),
    [
        ("zed@example.net", Kind.BOUNCE, 550, "unknown_address", Scope.RECIPIENT),
        ("later@example.net", Kind.DEFER, 451, "recipient_deferred", Scope.RECIPIENT),
        ("broken@example.net", Kind.DEFER, 451, "recipient_deferred", Scope.RECIPIENT),
        ("forbidden@example.net", Kind.BOUNCE, 550, "recipient_refused", Scope.RECIPIENT),
        ("blocked@example.net", Kind.FAIL, 550, "policy", Scope.DOMAIN),
        ("x@far.example", Kind.FAIL, 550, "relaying_denied", Scope.RELAY),
    ],
)
async def test_a_refusal_at_rcpt_is_read_from_its_words(
    send: Send, who: str, kind: Kind, code: int, error_class: str, scope: Scope
) -> None:
    outcome = await send(who)
    assert brief(outcome) == (kind, Phase.RCPT, code, error_class)
    assert outcome.scope is scope
    # "Unrouteable address" is the one that proves something about the address.
    assert (outcome.suppress is Suppress.NOW) == (who == "zed@example.net")


async def test_a_sender_that_cannot_be_verified_blames_no_recipient(send: Send) -> None:
    """Three lines, and "Unrouteable address" in them speaks of the sender."""
    outcome = await send(mail_from="zed@unsure.example.net")
    assert brief(outcome) == (Kind.FAIL, Phase.RCPT, 550, "sender_refused")
    assert (outcome.scope, outcome.suppress) == (Scope.SENDER, Suppress.NEVER)


async def test_a_refusal_that_ends_the_connection_leaves_the_next_message_alone(
    exim: Exim, pool_for: Make
) -> None:
    pool = pool_for(settings(exim.port, max_connections=1))
    dropped = await pool.deliver("main", envelope("dropped@example.net"), Marks())
    assert (dropped.phase, dropped.reply.code, dropped.suppress) == (
        Phase.RCPT,
        550,
        Suppress.AGAIN,
    )
    assert (await pool.deliver("main", envelope(), Marks())).kind is Kind.SENT


@pytest.mark.parametrize(
    ("subject", "kind", "code"), [("spam", Kind.FAIL, 550), ("later", Kind.DEFER, 451)]
)
async def test_a_refusal_after_the_dot_is_certain_and_blames_no_address(
    send: Send, subject: str, kind: Kind, code: int
) -> None:
    outcome = await send(content=f"Subject: {subject}\r\n\r\nx\r\n".encode())
    assert (outcome.kind, outcome.phase, outcome.reply.code) == (kind, Phase.DOT, code)
    assert (outcome.scope, outcome.suppress) == (Scope.MESSAGE, Suppress.NEVER)


async def test_a_message_above_size_is_not_offered(send: Send) -> None:
    outcome = await send(content=CONTENT + (b"x" * 70 + b"\r\n") * 1000)
    assert brief(outcome) == (Kind.FAIL, Phase.MAIL, 0, "too_large")
    assert "20480" in outcome.reply.text


async def test_a_wrong_password_costs_no_attempt(send: Send) -> None:
    outcome = await send(**LOGIN, password="wrong")
    assert brief(outcome) == (Kind.UNTOUCHED, Phase.AUTH, 535, "auth_refused")


async def test_a_password_store_that_is_away_defers(send: Send) -> None:
    outcome = await send(**{**LOGIN, "username": "away"}, auth=("login",))
    assert brief(outcome) == (Kind.DEFER, Phase.AUTH, 435, "auth_temporary")


async def test_a_connection_that_has_carried_its_share_is_replaced_unseen(
    exim: Exim, pool_for: Make
) -> None:
    """``421 too many messages in this connection``: it is the connection that has enough."""
    pool = pool_for(settings(exim.port, max_connections=1))
    outcomes = [await pool.deliver("main", envelope(), Marks()) for _ in range(12)]
    assert {o.kind for o in outcomes} == {Kind.SENT}
    assert pool.stats()["main"].opened == 3


async def let_in(make: Callable[[], Pool]) -> tuple[Pool, Outcome]:
    """The first pool that is past the greeting: the one connection may still be another's."""
    deadline = time.monotonic() + 5
    while True:
        pool = make()
        outcome = await pool.deliver("main", envelope(), Marks())
        if outcome.phase is not Phase.GREETING or time.monotonic() > deadline:
            return pool, outcome
        await asyncio.sleep(0.1)


async def test_too_many_connections_idle_too_long_and_no_room(
    poor_exim: Exim, pool_for: Make
) -> None:
    pool, first = await let_in(lambda: pool_for(settings(poor_exim.port)))
    assert brief(first) == (Kind.DEFER, Phase.MAIL, 452, "relay_full")
    assert first.scope is Scope.RELAY
    crowded = await pool_for(settings(poor_exim.port)).deliver("main", envelope(), Marks())
    assert brief(crowded) == (Kind.DEFER, Phase.GREETING, 421, "too_many_connections")
    # "421 SMTP command timeout" comes while the connection is idle.
    await asyncio.sleep(1.4)
    assert (await pool.deliver("main", envelope(), Marks())).error_class == "relay_full"
    assert pool.stats()["main"].opened == 2


async def test_tls_that_is_not_available_now_defers_and_says_no_auth(
    poor_exim: Exim, pool_for: Make, authority: Authority
) -> None:
    relay = settings(poor_exim.port, ca_file=authority.file, **LOGIN)
    pool, outcome = await let_in(lambda: pool_for(relay, PASSWORD))
    assert brief(outcome) == (Kind.DEFER, Phase.STARTTLS, 454, "starttls_refused")
    assert pool.stats()["main"].error_class == "starttls_refused"
    assert "AUTH" not in poor_exim.log()
