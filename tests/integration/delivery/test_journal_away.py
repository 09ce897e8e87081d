"""The journal goes away at every moment of a turn, with and without its COMMIT."""

from __future__ import annotations

import asyncio

import pytest

from mailgate.model.state import Lane
from tests.integration.delivery.house import Faults, House, soon, until
from tests.integration.smtp.scripted import Heard, ScriptedRelay

NORMAL = Lane.NORMAL


async def test_a_claim_whose_commit_was_not_answered_is_given_back_and_sent_once(
    house: House,
) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        faults = Faults(gateway)
        ids = await house.add("a@example.org", "b@example.org", "c@example.org")
        faults.lose = ["claims"]
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 3}
        assert faults.lost == 1
        assert len(relay.mails) == 3
        for id_ in ids:
            assert house.kinds(id_) == ["queued", "sent"]
            assert house.attempts(id_) == ["sent"]
        assert house.uncertain() == 0


async def test_a_lost_claim_is_given_back_although_nothing_else_is_due(house: House) -> None:
    """The task is over when the journal comes back, and no ring comes for a row in sending."""
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        faults = Faults(gateway)
        [id_] = await house.add("a@example.org")
        faults.lose = ["claims"]
        running = asyncio.create_task(gateway.deliver(NORMAL, soon(0.7)))
        await until(lambda: faults.lost)
        faults.away = True
        assert await running == {}
        assert house.state(id_) == "sending"
        faults.away = False
        await until(lambda: house.state(id_) == "queued")
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}
        assert len(relay.mails) == 1


async def test_settlements_whose_commit_was_not_answered_stand_once(house: House) -> None:
    async with ScriptedRelay(RCPT=["250 Ok", "550 5.1.1 No such user"]) as relay:
        gateway = await house.open({"main": relay}, worker={"conversations": 1})
        faults = Faults(gateway)
        a, b = await house.add("a@example.org", "b@example.org")
        # The second transaction settles the first recipient and claims the second.
        faults.lose = ["settled", "settled"]
        await gateway.deliver(NORMAL, soon())
        await until(lambda: house.states() == {"sent": 1, "bounced": 1})
        assert house.attempts(a) == ["sent"]
        assert house.attempts(b) == ["bounce"]
        # The other one is empty: it answers the 354 that came with the refusal.
        assert len([mail for mail in relay.mails if mail]) == 1


async def test_two_lost_commits_in_a_row_leave_nobody_claimed_by_a_ghost(house: House) -> None:
    """Settled to due-now by one lost COMMIT and claimed again by the next: the outcome of the
    first claim, which still waits to be written, must not pass for a conversation."""
    async with ScriptedRelay(GREETING="421 4.3.2 closed") as down, ScriptedRelay() as up:
        gateway = await house.open({"down": down, "main": up})
        faults = Faults(gateway)
        [id_] = await house.add("a@example.org", route=("down", "main"))
        faults.lose = ["settled", "claims"]
        await gateway.deliver(NORMAL, soon(4))
        assert faults.lost == 2
        assert house.state(id_) == "sent"
        assert len(up.mails) == 1
        assert house.uncertain() == 0


@pytest.mark.parametrize("committed", [False, True])
async def test_the_journal_away_while_settling_keeps_the_outcomes(
    house: House, committed: bool
) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        faults = Faults(gateway)
        room = gateway._lease.spool.room
        ids = await house.add("a@example.org", "b@example.org")
        release = asyncio.Event()

        async def slow(heard: Heard) -> str:
            await release.wait()
            return "250 2.0.0 Ok"

        relay._on["DOT"] = slow
        running = asyncio.create_task(gateway.deliver(NORMAL, soon(1.0)))
        await until(lambda: len(relay.mails) == 2)
        if committed:
            faults.lose = ["settled"]
        else:
            faults.away = True
        release.set()
        await running
        if not committed:
            assert [house.state(i) for i in ids] == ["sending", "sending"]
            assert gateway._lease.spool.room == room - 2
            faults.away = False
        await until(lambda: house.states() == {"sent": 2})
        await until(lambda: gateway._lease.spool.room == room)
        assert [house.attempts(i) for i in ids] == [["sent"], ["sent"]]
        assert len(relay.mails) == 2
        await gateway.stop(1)
        house.gone(gateway)
        house.nothing_is_left_behind()


async def test_nothing_is_sent_past_the_dot_while_the_lease_cannot_be_renewed(
    house: House,
) -> None:
    """The journal is away for longer than a lease: who may have been buried sends nothing."""
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay, "other": ScriptedRelayAt(relay.port)})
        [id_] = await house.add("a@example.org", route=("main", "other"))

        async def late(heard: Heard) -> str:
            gateway._lease._beaten -= 60
            return "354 Go on"

        relay._on["DATA"] = [late, "354 Go on"]
        assert await gateway.deliver(NORMAL, soon(1)) == {"untouched": 1}
        assert relay.mails == []
        assert house.kinds(id_)[-1] == "queued"
        assert house.attempts(id_) == []
        # No relay failed: it does not go to the next one for that.
        row = house.journal.one(
            "SELECT b.route FROM buckets b JOIN recipients r ON r.bucket_id = b.id"
        )
        assert row.route == "main,other"


class ScriptedRelayAt(ScriptedRelay):
    """A second name for a relay."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
