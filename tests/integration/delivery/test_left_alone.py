"""What keeps failing is left alone, the rest goes on, and one probe finds out when it is better."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from mailgate.dispatch import flow
from mailgate.limits.breaker import Kind, Subject
from mailgate.model.state import Lane
from tests.contract.journal.rig import arrival
from tests.integration.delivery.house import House, soon
from tests.integration.smtp.scripted import Heard, ScriptedRelay

NORMAL = Lane.NORMAL
#: Breakers that a test can wait for.
QUICK: dict[str, Any] = {
    "relay": {"first": 0.4, "cap": 0.4},
    "login": {"first": 30.0},
    "domain": {"failures": 3, "first": 30.0},
    "sender": {"failures": 2, "first": 30.0},
}


async def work(house: House, gateway: Any, seconds: float) -> None:
    """As a worker does: tasks, one after the other."""
    deadline = soon(seconds)
    while asyncio.get_running_loop().time() < deadline:
        await gateway.deliver(NORMAL, deadline)
        await asyncio.sleep(0.05)


def said(relay: ScriptedRelay, verb: str) -> int:
    return sum(heard.verbs.count(verb) for heard in relay.heard)


async def test_mail_for_a_dead_relay_waits_without_attempts_until_one_probe_gets_through(
    house: House,
) -> None:
    async with ScriptedRelay(GREETING="421 4.3.2 down") as relay:
        changes = {
            "breakers": QUICK | {"relay": {"failures": 1, "first": 0.4, "cap": 0.4}},
            "streams": {"transactional": {"retry": {"first": 600, "cap": 600}}},
        }
        one = await house.open({"main": relay}, **changes)
        other = await house.open({"main": relay}, **changes)
        ids = await house.add(*(f"a{n}@example.org" for n in range(40)))
        await asyncio.gather(work(house, one, 1.2), work(house, other, 1.2))
        # Each that failed to connect had an attempt; the others wait as they came.
        tried = [i for i in ids if house.attempts(i)]
        assert len(tried) == len(relay.heard)
        assert 2 <= len(tried) <= 5
        claims = sum(house.journal.row(i).claims for i in ids)
        # Those that were claimed when the first failed, by each, and the probes.
        assert claims <= 30
        relay._on["GREETING"] = "220 up"
        before = len(relay.heard)
        await asyncio.sleep(0.5)
        # No time for more than the probe: it goes alone.
        await one.deliver(NORMAL, soon(0.01))
        await asyncio.sleep(0.3)
        assert len(relay.heard) == before + 1
        assert len(relay.mails) == 1
        # Some had met the relay's first failures and been put back for seconds.
        for _ in range(20):
            await work(house, one, 0.3)
            if house.states() == {"sent": 40 - len(tried), "deferred": len(tried)}:
                break
        else:
            raise AssertionError(house.states())


async def test_while_the_first_relay_is_open_no_word_goes_to_it(small_house: House) -> None:
    house = small_house
    async with ScriptedRelay(GREETING="421 no") as down, ScriptedRelay() as up:
        breakers = QUICK | {"relay": {"failures": 1, "first": 30.0}}
        gateway = await house.open({"down": down, "up": up}, breakers=breakers)
        await house.add("first@example.org", key="first", route=("down", "up"))
        await gateway.deliver(NORMAL, soon())
        assert len(up.mails) == len(down.heard) == 1
        await house.add(*(f"a{n}@example.org" for n in range(20)), route=("down", "up"))
        await gateway.deliver(NORMAL, soon())
        assert (len(up.mails), len(down.heard)) == (21, 1)
        assert house.journal.count("attempts", "relay = 'down'") == 1


async def test_a_refused_login_is_tried_once_for_all_workers_and_costs_no_attempt(
    small_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house = small_house
    async with ScriptedRelay(MAIL="530 5.7.0 Authentication required") as relay:
        one = await house.open({"main": relay}, breakers=QUICK, worker={"conversations": 1})
        two = await house.open({"main": relay}, breakers=QUICK, worker={"conversations": 1})
        ids = await house.add(*(f"a{n}@example.org" for n in range(10)))
        with caplog.at_level(logging.INFO, "mailgate.gateway"):
            await work(house, one, 0.4)
            await asyncio.gather(work(house, one, 0.6), work(house, two, 0.6))
        assert said(relay, "MAIL") == 1
        assert [house.journal.row(i).attempts for i in ids] == [0] * 10
        assert house.states() == {"queued": 10}
        errors = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "refuses our login" in errors[0].getMessage()


async def test_a_destination_that_throttles_is_suspended_and_no_other_waits(
    house: House,
) -> None:
    async with ScriptedRelay(offers=(), RCPT="421 4.7.0 [TSS04] Messages deferred") as relay:
        gateway = await house.open(
            {"main": relay},
            breakers=QUICK,
            relays={"main": {"max_connections": 1}},
            worker={"conversations": 1},
        )
        ids = await house.add(*(f"a{n}@yahoo.example" for n in range(30)))
        await gateway.deliver(NORMAL, soon(0.5))
        relay._on["RCPT"] = "250 Ok"
        await house.add("well@example.org", key="well")
        assert await gateway.deliver(NORMAL, soon(1)) == {"sent": 1}
        rows = [house.journal.row(i) for i in ids]
        assert sum(r.attempts for r in rows) == 1
        assert sum(r.claims for r in rows) == 1
        record = shown(gateway, Subject(Kind.DOMAIN, "main", "yahoo.example"))
        assert record.open
        assert record.until - house.journal.database.now() > 5_000_000


async def test_a_sender_that_is_refused_waits_and_other_senders_go(small_house: House) -> None:
    house = small_house
    async with ScriptedRelay(offers=(), MAIL="553 5.7.1 Sender address rejected") as relay:
        gateway = await house.open({"main": relay}, breakers=QUICK, worker={"conversations": 1})
        ids = await house.add(*(f"a{n}@example.org" for n in range(10)))
        await gateway.deliver(NORMAL, soon(0.6))
        states = [house.state(i) for i in ids]
        assert (states.count("failed"), states.count("queued")) == (2, 8)
        relay._on["MAIL"] = "250 Ok"
        await house.store(arrival("other", "b@example.org", sender="other@example.com"))
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}


async def test_a_relay_that_throttles_is_slowed_as_a_whole(small_house: House) -> None:
    house = small_house
    replies = ["250 Ok"] * 20 + ["454 Throttling failure: Maximum sending rate exceeded."]
    async with ScriptedRelay(DOT=[*replies, "250 Ok"]) as relay:
        gateway = await house.open(
            {"main": relay},
            breakers=QUICK | {"slowest": "60/m"},
            relays={"main": {"max_connections": 1}},
            worker={"conversations": 1},
        )
        await house.add(*(f"a{n}@example.org" for n in range(60)))
        await gateway.deliver(NORMAL, soon(1.5))
        record = shown(gateway, Subject(Kind.RELAY, "main"))
        assert (record.open, record.error_class) == (False, "rate_limited")
        assert 60 <= record.pace <= 120
        sent = house.states()["sent"]
        assert 20 <= sent < 30, "it goes on, slowly"


def shown(gateway: Any, who: Subject) -> Any:
    """As the process's gate sees it."""
    return gateway._taker.gate._health[who].record


async def test_a_destination_that_never_answers_leaves_places_to_who_comes_after_it(
    small_house: House,
) -> None:
    """Though it was alone when its mail was taken: nothing fails for minutes (dispatch/flow.py)."""
    house = small_house

    async def rcpt(heard: Heard) -> str:
        return "hang" if "mute.example" in heard.commands[-1] else "250 Ok"

    async with ScriptedRelay(RCPT=rcpt) as relay:
        gateway = await house.open(
            {"main": relay}, relays={"main": {"max_connections": 4}}, worker={"conversations": 10}
        )
        ids = await house.add(*(f"a{n}@mute.example" for n in range(40)))
        await gateway.deliver(NORMAL, soon(0.3))
        assert sum(house.state(i) == "sending" for i in ids) == 1
        await house.add(*(f"a{n}@org{n % 3}.example" for n in range(30)), key="well")
        assert await gateway.deliver(NORMAL, soon(3)) == {"sent": 30}


async def test_a_destination_that_answers_no_more_gives_its_connections_to_the_others(
    small_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it had a reply to show when its mail was taken, and any number was open to it."""
    house, mute = small_house, False
    monkeypatch.setattr(flow, "BLAMED", 2.0)

    async def rcpt(heard: Heard) -> str:
        return "hang" if mute and "mute.example" in heard.commands[-1] else "250 Ok"

    async with ScriptedRelay(RCPT=rcpt) as relay:
        gateway = await house.open(
            {"main": relay}, relays={"main": {"max_connections": 4}}, worker={"conversations": 10}
        )
        await house.add(*(f"a{n}@mute.example" for n in range(9)))
        assert await gateway.deliver(NORMAL, soon(1)) == {"sent": 9}
        mute = True
        ids = await house.add(*(f"b{n}@mute.example" for n in range(40)), key="mute")
        await gateway.deliver(NORMAL, soon(0.3))
        assert sum(house.state(i) == "sending" for i in ids) == 9
        await house.add(*(f"a{n}@org{n % 3}.example" for n in range(30)), key="well")
        for _ in range(7):
            await gateway.deliver(NORMAL, soon(1))
            if house.states().get("sent") == 39:
                break
        assert house.states() == {"sent": 39, "queued": 39, "sending": 1}
        assert not any(house.attempts(i) for i in ids)
