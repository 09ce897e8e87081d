"""The sandbox and the simulated recipients, from the queue to the record."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mailgate import log
from mailgate.journal.filters import Filter
from mailgate.journal.surgery import Act
from mailgate.model.ids import spell
from mailgate.model.state import Lane, State
from mailgate.operations.resend import move_all
from tests.integration.delivery.house import House, soon
from tests.integration.smtp.scripted import ScriptedRelay

CAPTURE = {"mode": "capture", "allow": ["*@ours.example"]}


def rcpts(relay: ScriptedRelay) -> list[str]:
    return [c for heard in relay.heard for c in heard.commands if c.startswith("RCPT")]


async def test_what_is_captured_never_meets_a_relay_and_can_be_released(
    small_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house = small_house
    async with ScriptedRelay() as relay:
        with caplog.at_level(logging.WARNING, "mailgate.gateway"):
            inside = await house.open({"main": relay}, sandbox=CAPTURE)
        assert "the sandbox is on" in caplog.text
        stranger, _ = await house.add("a@example.org", "b@ours.example", sensitive=True)
        assert await inside.deliver(Lane.NORMAL, soon()) == {"captured": 1, "sent": 1}
        assert rcpts(relay) == ["RCPT TO:<b@ours.example>"]
        assert house.kinds(stranger) == ["captured"]
        assert house.attempts(stranger) == []
        [event] = house.journal.all(
            "SELECT detail FROM events WHERE recipient_id = :id AND kind = 'captured'", id=stranger
        )
        assert "no relay was touched" in event.detail
        await inside.stop(0)
        house.gone(inside)

        # Somebody had left it on in production: what it kept goes out, once.
        outside = await house.open({"main": relay})
        kept = Filter(states=(State.CAPTURED,))
        act = Act("ann@host", "resend", "sandbox was on")
        [moved] = await asyncio.to_thread(
            lambda: [*move_all(house.journal.database, kept, State.QUEUED, act, lambda _: None)]
        )
        assert moved.recipient_ids == (stranger,)
        assert await outside.deliver(Lane.NORMAL, soon()) == {"sent": 1}
        assert house.kinds(stranger) == ["captured", "queued", "sent"]
        assert len(relay.mails) == 2
        # A sensitive message forgets nothing while somebody may yet get it.
        assert b"a line" in relay.mails[1]


async def test_captured_mail_can_be_looked_at_and_nothing_depends_on_it(
    small_house: House,
) -> None:
    house = small_house
    async with ScriptedRelay() as relay:
        async with ScriptedRelay(DOT=["250 Ok", "451 full"]) as viewer:
            sandbox = {"mode": "capture", "inbox": f"127.0.0.1:{viewer.port}"}
            gateway = await house.open({"main": relay}, sandbox=sandbox)
            await house.add("a@example.org", "b@example.org")
            assert await gateway.deliver(Lane.NORMAL, soon()) == {"captured": 2}
        assert sorted(rcpts(viewer)) == ["RCPT TO:<a@example.org>", "RCPT TO:<b@example.org>"]
        await house.add("c@example.org", key="two")
        assert await gateway.deliver(Lane.NORMAL, soon()) == {"captured": 1}
        assert relay.heard == []
        assert house.states() == {"captured": 3}
        assert house.uncertain() == 0


async def test_what_is_redirected_goes_to_one_address_alone(small_house: House) -> None:
    house = small_house
    sandbox = {"mode": "redirect", "redirect_to": "qa@ours.example"}
    replies = {"RCPT": ["250 Ok", "250 Ok", "550 5.1.1 no such user"]}
    async with ScriptedRelay(**replies) as relay:
        gateway = await house.open(
            {"main": relay}, sandbox=sandbox, relays={"main": {"max_connections": 1}}
        )
        ids = await house.add("a@example.org", "b@example.org", "c@example.org", kind="to")
        counts = await gateway.deliver(Lane.NORMAL, soon())
        assert counts == {"sent": 2, "bounce": 1}
        assert set(rcpts(relay)) == {"RCPT TO:<qa@ours.example>"}
        originals = sorted(mail.partition(b"\r\n")[0] for mail in relay.mails if mail)
        assert len(originals) == 2
        assert set(originals) < {f"X-Original-To: {c}@example.org".encode() for c in "abc"}
        for id_ in ids:
            [event] = house.journal.all(
                "SELECT detail FROM events WHERE recipient_id = :id", id=id_
            )
            assert "redirected by the sandbox" in event.detail


async def test_simulated_recipients_take_the_way_of_all_mail(
    small_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through retry and settle to the record, with a relay that must not hear of them."""
    house = small_house
    logged: list[log.Disposition] = []
    monkeypatch.setattr(log, "dispositions", logged.extend)
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        parts = ("sent", "bounce", "fail", "full", "defer-twice", "uncertain")
        ids = await house.add(*(f"{part}+7@simulate.mailgate.test" for part in parts))
        found = dict(zip(parts, ids, strict=True))
        for _ in range(4):
            await gateway.deliver(Lane.NORMAL, soon(0.5))
            await asyncio.sleep(0.25)
        assert {part: house.attempts(id_)[:3] for part, id_ in found.items()} == {
            "sent": ["sent"],
            "bounce": ["bounce"],
            "fail": ["fail"],
            "full": ["defer", "defer", "defer"],
            "defer-twice": ["defer", "defer", "sent"],
            "uncertain": ["uncertain", "sent"],
        }
        states = {part: house.state(id_) for part, id_ in found.items()}
        assert states.pop("full") in ("deferred", "queued")
        assert states == {
            "sent": "sent",
            "bounce": "bounced",
            "fail": "failed",
            "defer-twice": "sent",
            "uncertain": "sent",
        }
        assert relay.heard == []
        relays = house.journal.all("SELECT DISTINCT relay FROM attempts")
        assert [row.relay for row in relays] == ["simulator"]
        # The log names relay and recipient as the commands do.
        assert {one.relay for one in logged} == {"simulator"}
        assert {one.recipient_id for one in logged} == {spell(id_) for id_ in ids}
