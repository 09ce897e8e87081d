"""A process that was paused past its lease, and what becomes of it and its mail."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from mailgate.delivery import spool as spools
from mailgate.gateway import Gateway
from mailgate.model.state import Lane
from tests.contract.journal.rig import Rig
from tests.integration.delivery.house import Faults, House, soon, until
from tests.integration.smtp.scripted import Heard, ScriptedRelay

NORMAL = Lane.NORMAL


async def bury(undertaker: Gateway, dead: Gateway) -> int:
    """What ``undertaker`` does once ``dead`` has been silent for a whole lease."""
    path, lease = Path(dead._lease.spool.path), dead._lease.id
    marks = spools.bury(path, lease)
    settled = await undertaker._lease._settle(lease, marks, random.random)
    await undertaker._lease._remove(lease)
    return settled


async def test_a_process_buried_before_its_dot_sends_nothing(house: House) -> None:
    async with ScriptedRelay() as relay:
        paused, other = await house.open({"main": relay}), await house.open({"main": relay})
        [id_] = await house.add("a@example.org")

        async def meanwhile(heard: Heard) -> str:
            assert await bury(other, paused) == 1
            return "354 Go on"

        relay._on["DATA"] = [meanwhile, "354 Go on"]
        assert await paused.deliver(NORMAL, soon()) == {"stale": 1}
        assert relay.mails == []
        assert house.kinds(id_) == ["queued"]
        assert await other.deliver(NORMAL, soon()) == {"sent": 1}
        assert len(relay.mails) == 1
        assert house.uncertain() == 0


async def test_a_process_buried_after_its_dot_writes_nothing(house: House) -> None:
    """The recipient is uncertain, whatever the relay says to who has no token any more."""
    async with ScriptedRelay() as relay:
        paused, other = await house.open({"main": relay}), await house.open({"main": relay})
        [id_] = await house.add("a@example.org")

        async def meanwhile(heard: Heard) -> str:
            assert await bury(other, paused) == 1
            return "250 2.0.0 Ok"

        relay._on["DOT"] = [meanwhile, "250 2.0.0 Ok"]
        assert await paused.deliver(NORMAL, soon(1.5)) == {"stale": 1}
        assert house.kinds(id_) == ["uncertain", "queued"]
        await asyncio.sleep(0.3)
        assert await other.deliver(NORMAL, soon()) == {"sent": 1}
        assert house.attempts(id_) == ["uncertain", "sent"]
        assert len(relay.mails) == 1 + house.uncertain()


async def test_a_reply_on_record_is_a_mail_that_was_sent(house: House) -> None:
    """It died between the 250 and the journal."""
    async with ScriptedRelay() as relay:
        dead, other = await house.open({"main": relay}), await house.open({"main": relay})
        faults = Faults(dead)
        [id_] = await house.add("a@example.org")
        running = asyncio.create_task(dead.deliver(NORMAL, soon(0.5)))
        await until(lambda: relay.mails)
        faults.away = True
        await running
        await bury(other, dead)
        assert house.kinds(id_) == ["sent"]
        assert len(relay.mails) == 1
        faults.away = False


async def test_a_process_taken_for_dead_starts_over(house: House) -> None:
    """With its conversations aborted, under a new lease, and without sending anything twice."""
    async with ScriptedRelay(DATA=["hang", "354 Go on"], offers=()) as relay:
        paused = await house.open({"main": relay}, worker={"lease": 4})
        other = await house.open({"main": relay}, worker={"lease": 4})
        before = paused._lease.id
        [id_] = await house.add("a@example.org")
        running = asyncio.create_task(paused.deliver(NORMAL, soon(6)))
        await until(lambda: relay.heard and "DATA" in relay.heard[0].verbs)
        await bury(other, paused)
        await until(lambda: paused._lease.id != before, 6)
        await running
        if house.state(id_) == "queued":
            await paused.deliver(NORMAL, soon())
        await until(lambda: house.state(id_) == "sent")
        assert len(relay.mails) == 1
        assert house.uncertain() == 0
        for gateway in (paused, other):
            await gateway.stop(1)
            house.gone(gateway)
        house.nothing_is_left_behind()


async def test_starting_over_survives_the_journal_going_away_in_the_middle(house: House) -> None:
    async with ScriptedRelay() as relay:
        paused = await house.open({"main": relay}, worker={"lease": 4})
        before = paused._lease.id
        faults = Faults(paused)
        house.journal.sql("DELETE FROM leases")
        run = faults.run_now

        def away_for_the_new_lease(work):  # type: ignore[no-untyped-def]
            done = run(work)
            if done is False:  # what the heartbeat was told
                faults.away = True
            return done

        paused._database.run_now = away_for_the_new_lease  # type: ignore[method-assign]
        await until(lambda: faults.refused, 6)
        await asyncio.sleep(1.5)
        faults.away = False
        paused._database.run_now = run  # type: ignore[method-assign]
        await until(lambda: paused._lease.id != before, 8)
        await house.add("a@example.org")
        await until(lambda: paused._lease.valid)
        assert await paused.deliver(NORMAL, soon()) == {"sent": 1}


async def test_the_heart_outlives_a_fault_of_its_own(house: House) -> None:
    """A fault that is no outage (a bug, a full disk) must not leave a process without a heart."""
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay}, worker={"lease": 4})
        real, beats = gateway._lease.sweep, []

        async def broken(random: object) -> int:
            beats.append(1)
            raise OSError(28, "No space left on device")

        gateway._lease.sweep = broken  # type: ignore[method-assign]
        await until(lambda: len(beats) >= 2, 5)
        gateway._lease.sweep = real  # type: ignore[method-assign]
        assert gateway._life is not None
        assert not gateway._life.done()
        await asyncio.sleep(2.5)
        await until(lambda: gateway._lease.valid)


async def test_suspects_are_claimed_alone_and_before_the_others(house: House) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        ids = await house.add("a@example.org", "b@example.org", "c@example.org", "d@example.org")
        house.journal.sql(
            "UPDATE recipients SET suspect = true WHERE id IN (:a, :b)", a=ids[1], b=ids[2]
        )
        open_then: list[set[str]] = []

        async def look(heard: Heard) -> str:
            rows = house.journal.all("SELECT email FROM recipients WHERE state = 'sending'")
            open_then.append({row.email for row in rows})
            return "250 2.0.0 Ok"

        relay._on["DOT"] = look
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 4}
        assert open_then[:2] == [{"b@example.org"}, {"c@example.org"}]
        assert open_then[2] == {"a@example.org", "d@example.org"}
        assert house.journal.count("recipients", "suspect") == 0


async def test_a_suspect_that_cannot_go_holds_nobody_up(house: House) -> None:
    """Its stream and its relay are no longer configured."""
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        [lost] = await house.add("a@example.org", route=("gone",), stream="gone", key="lost")
        house.journal.sql("UPDATE recipients SET suspect = true WHERE id = :a", a=lost)
        await house.add("b@example.org", "c@example.org")
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 2}
        assert house.state(lost) == "queued"


async def test_a_message_that_kills_its_workers_is_held_after_so_many(house: House) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay}, worker={"max_claims": 3})
        [id_] = await house.add("a@example.org")
        for death in range(4):
            rig = Rig(house.url)
            lease = rig.lease()
            [claim] = rig.claim(lease, 1)
            assert claim.recipient_id == id_
            rig.close()
            await gateway._lease._settle(lease, {}, random.random)
            await gateway._lease._remove(lease)
            assert house.state(id_) == ("held" if death == 3 else "queued")
        assert house.journal.row(id_).error_class == "poison"
        assert await gateway.deliver(NORMAL, soon()) == {}
