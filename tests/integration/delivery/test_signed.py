"""Signatures after the way through SMTP, and over several attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailgate.config.faults import ConfigError
from mailgate.journal.letters import letter_text
from mailgate.model.address import Address
from mailgate.model.message import Unsubscribe
from mailgate.model.state import Lane
from mailgate.render.dkim_keys import make_key, read_key, record
from tests.integration.delivery.house import House, soon
from tests.integration.smtp.scripted import ScriptedRelay
from tests.servers import Sink
from tests.servers.verifiers import dkimpy, mail_dkim

SIGNED = letter_text(
    sender=Address("news@example.com", "Bell, Ann (news)"),
    mail_from="bounces@example.com",
    domain="example.com",
    subject="Grüße " * 30,
    text=".a dot first\n\ntwo  blanks, and a blank at the end \n.\n\n\n",
    html="<p>" + "word " * 300 + "</p>",
    unsubscribe=Unsubscribe("https://example.com/unsubscribe?t=" + "u" * 266),
)


@pytest.fixture
def dkim(tmp_path: Path) -> dict[str, Any]:
    """A section with a key of each kind."""
    keys = {"rsa": tmp_path / "rsa.pem", "ed": tmp_path / "ed.pem"}
    keys["rsa"].write_bytes(make_key("rsa"))
    keys["ed"].write_bytes(make_key("ed25519"))
    return {"example.com": {"keys": keys}}


def published(dkim: dict[str, Any]) -> dict[str, str]:
    keys = dkim["example.com"]["keys"]
    made = [record("example.com", selector, read_key(path)) for selector, path in keys.items()]
    return {one.name: one.text for one in made}


async def test_signatures_hold_behind_a_server_that_we_did_not_write(
    small_house: House, smtp_sink: Callable[..., Sink], dkim: dict[str, Any]
) -> None:
    sink = smtp_sink()
    gateway = await small_house.open({"main": sink}, dkim=dkim)  # type: ignore[dict-item]
    await small_house.add("ann@example.org", body=SIGNED)
    assert await gateway.deliver(Lane.NORMAL, soon()) == {"sent": 1}
    # It keeps lines as Unix does, under some of its own.
    [mail] = [mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for mail in sink.mails()]
    assert b"\r\n..a" not in mail
    both = [["example.com", "rsa", "pass"], ["example.com", "ed", "pass"]]
    assert await asyncio.to_thread(dkimpy, [mail], published(dkim)) == [both]
    [said] = await asyncio.to_thread(mail_dkim, [mail], published(dkim))
    assert ["example.com", "rsa", "pass"] in said


async def test_a_second_attempt_sends_the_same_signatures(
    small_house: House, dkim: dict[str, Any]
) -> None:
    """Also when nothing of the first was kept, as when the relay had refused the password."""
    async with ScriptedRelay(DOT=["451 4.3.0 later", "250 Ok", "250 Ok"]) as relay:
        gateway = await small_house.open({"main": relay}, dkim=dkim)
        one, two = await small_house.add("a@example.org", "b@example.org", kind="to", body=SIGNED)
        await gateway.deliver(Lane.NORMAL, soon(0.5))
        await asyncio.sleep(0.3)
        await gateway.deliver(Lane.NORMAL, soon(0.5))
        assert {small_house.state(one), small_house.state(two)} == {"sent"}
        assert len(relay.mails) == 3
        assert len(set(relay.mails)) == 1
        assert b"DKIM-Signature" in relay.mails[0]


async def test_a_key_that_cannot_sign_keeps_the_worker_shut(
    small_house: House, dkim: dict[str, Any]
) -> None:
    """Never unsigned by mistake: receivers would refuse the mail, or worse, learn to."""
    dkim["example.com"]["keys"]["rsa"].write_text("no key")
    with pytest.raises(ConfigError, match=r'dkim\."example\.com"\.keys\.rsa is no private key'):
        await small_house.open({}, dkim=dkim)
