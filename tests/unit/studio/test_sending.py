"""To whom test mails may go."""

from __future__ import annotations

import pytest

from mailgate.config.embedded import complete
from mailgate.config.shape import Config
from mailgate.model.address import Address
from mailgate.studio.sending import Counter, refusal, way
from mailgate.studio.workshop import Made

ALLOWED = ("*@example.com", "Me@corp.example")


@pytest.mark.parametrize("email", ["ann@example.com", "me@corp.example", "ME@corp.example"])
def test_who_is_listed_may_get_one(email):
    assert refusal(email, ALLOWED, everybody=False) is None


@pytest.mark.parametrize(
    "email",
    [
        "you@corp.example",
        "me+x@corp.example",
        "ann@sub.example.com",
        "ann@example.com.evil.example",
        "ann@notexample.com",
        "*@corp.example",
    ],
)
def test_nobody_else_may(email):
    why = refusal(email, ALLOWED, everybody=False)
    assert why == "test mails may go to *@example.com, Me@corp.example only (studio.send_test)"


def test_everybody_may_while_nothing_leaves_the_machine():
    assert refusal("anyone@example.org", (), everybody=True) is None


def config(**said: object) -> Config:
    return Config.model_validate(said)


RELAYS = {"first": {"host": "a.example"}, "second": {"host": "b.example", "port": 25}}


def test_the_embedded_inbox_takes_everything():
    found = way(complete(config()), local=True)
    assert (found.why_not, found.relay, found.host) == ("", "inbox", "127.0.0.1:1025")
    assert found.mail_from == "noreply@mailgate.localhost"


def test_the_default_stream_names_relay_sender_and_reverse_path():
    found = way(
        config(
            relays=RELAYS,
            default_stream="news",
            streams={"news": {"from": "N <n@example.com>", "relays": ["second"]}},
            studio={"send_test": ["*@example.com"]},
        ),
        local=False,
    )
    assert (found.why_not, found.relay, found.host) == ("", "second", "b.example:25")
    assert found.mail_from == "n@example.com"


def test_what_is_missing_is_said():
    sender = {"transactional": {"from": "n@example.com"}}
    send_test = {"send_test": ["*@example.com"]}
    assert "no relay" in way(config(), local=False).why_not
    unset = way(config(relays=RELAYS, studio=send_test), local=False)
    assert "streams.transactional.from is not set" in unset.why_not
    nobody = way(config(relays=RELAYS, streams=sender), local=False)
    assert "studio.send_test" in nobody.why_not
    fault = way(
        config(relays=RELAYS, streams=sender, studio=send_test), local=False, fault="no password"
    )
    assert fault.why_not == "no password"


@pytest.mark.parametrize(
    "sandbox",
    [
        {"mode": "capture", "allow": ["me@corp.example"]},
        {"mode": "redirect", "redirect_to": "qa@corp.example", "allow": ["me@corp.example"]},
    ],
)
async def test_the_sandbox_keeps_test_mails_in_too(sandbox):
    said = config(
        relays={"main": {"host": "127.0.0.1", "port": 1, "security": "none"}},
        streams={"transactional": {"from": "shop@example.com"}},
        studio={"send_test": ["*@corp.example", "*@example.org"]},
        sandbox=sandbox,
    )
    counter = Counter(said, {}, way(said, local=False))

    def make(_sender: Address, _to: Address) -> Made:
        return Made(problem="it went through")

    refused = await counter.post("ann@example.org", make)
    assert "sandbox.mode is" in refused.refused
    assert refused.made is None
    allowed = await counter.post("me@corp.example", make)
    assert allowed.refused == "there is no mail to send"
    await counter.close()
