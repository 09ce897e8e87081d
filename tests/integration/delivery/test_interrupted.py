"""Tasks that are interrupted, deadlines that pass, processes that stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa

from mailgate import failpoints
from mailgate.delivery import alone
from mailgate.journal.settling import Settlement
from mailgate.model.state import Lane
from tests.integration.delivery.house import Faults, House, soon, until
from tests.integration.smtp.scripted import Heard, ScriptedRelay

NORMAL = Lane.NORMAL


async def interrupt(task: asyncio.Task[dict[str, int]]) -> None:
    """As a soft time limit does."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_what_an_interrupted_task_claims_is_sent_and_settled(house: House) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        faults = Faults(gateway)
        await house.add("a@example.org", "b@example.org")
        faults.hold()
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await asyncio.to_thread(faults.waiting.wait, 5)
        await interrupt(task)
        faults.free()
        await until(lambda: house.states() == {"sent": 2})
        assert len(relay.mails) == 2


async def test_a_turn_of_unknown_end_does_not_give_back_what_an_interrupted_one_claims(
    house: House,
) -> None:
    """The interrupted task's turn is at the journal; the next one's begins in doubt."""
    release = asyncio.Event()

    async def slow(heard: Heard) -> str:
        await release.wait()
        return "250 2.0.0 Ok"

    async with ScriptedRelay(DOT=slow) as relay:
        gateway = await house.open({"main": relay})
        faults = Faults(gateway)
        [id_] = await house.add("a@example.org")
        faults.hold()
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await asyncio.to_thread(faults.waiting.wait, 5)
        await interrupt(task)
        assert gateway._pipeline is not None
        gateway._pipeline._doubt = True
        following = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await asyncio.sleep(0.2)
        faults.free()
        await until(lambda: relay.mails)
        await asyncio.sleep(0.5)
        assert house.state(id_) == "sending"
        release.set()
        assert await following == {"sent": 1}
        assert len(relay.mails) == 1


async def test_what_a_turn_claimed_that_failed_after_its_commit_is_given_back_and_sent(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours there would leave it claimed for as long as the process lives."""
    failed = []

    def fail_once(name: str) -> None:
        if name == "take.claimed" and not failed:
            failed.append(name)
            raise failpoints.Failed(name)

    monkeypatch.setattr(failpoints, "hit", fail_once)
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        await house.add("a@example.org")
        with pytest.raises(failpoints.Failed):
            await gateway.deliver(NORMAL, soon())
        await until(lambda: house.states() == {"queued": 1})
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}
        assert len(relay.mails) == 1


@pytest.mark.parametrize("point", ["settle.begin", "settle.after_commit"])
async def test_a_turn_that_fails_again_and_again_is_made_good_without_another_task(
    house: House, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Nothing else falls due here that would bring another turn, and nothing is used up."""
    failed = []

    def fail_thrice(name: str) -> None:
        if name == point and len(failed) < 3:
            failed.append(name)
            raise failpoints.Failed(name)

    monkeypatch.setattr(failpoints, "hit", fail_thrice)
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        await house.add("a@example.org", "b@example.org")
        with pytest.raises(failpoints.Failed):
            await gateway.deliver(NORMAL, soon())
        await until(lambda: house.states() == {"sent": 2})
        assert len(relay.mails) == 2
        pipeline = gateway._pipeline
        assert pipeline is not None
        await until(lambda: not pipeline.unsettled)
        assert gateway._lease.spool.room == 10 * 8


@pytest.mark.parametrize("together", [True, False])
async def test_an_outcome_that_cannot_be_written_holds_up_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """What the relay said of one has something in it that the database refuses, say."""
    monkeypatch.setattr(alone, "HOPELESS", 1000 if together else 2)

    async def answer(heard: Heard) -> str:
        return "451 4.3.0 later" if b"To: c@" in heard.mails[-1] else "250 2.0.0 Ok"

    async with ScriptedRelay(DOT=answer) as relay:
        # In one batch or one after the other: then nobody can tell at once whose fault it is.
        places = 10 if together else 1
        gateway = await house.open({"main": relay}, worker={"conversations": places})
        pipeline = gateway._pipeline
        assert pipeline is not None
        write = pipeline._settling.write

        def refuse(connection: sa.Connection, settlements: Sequence[Settlement], now: int) -> Any:
            if any(s.recipient_id in bad and s.attempt for s in settlements):
                raise ValueError("a NUL")
            return write(connection, settlements, now)

        pipeline._settling.write = refuse  # type: ignore[method-assign]
        sent, good, deferred = [await house.add(f"{n}@example.org", key=n) for n in "abc"]
        bad = {*sent, *deferred}
        with pytest.raises(ValueError, match="a NUL"):
            await gateway.deliver(NORMAL, soon())
        await until(lambda: not pipeline.unsettled)
        while await gateway.due():
            with suppress(ValueError):
                await gateway.deliver(NORMAL, soon())
            await until(lambda: not pipeline.unsettled)
        states = [house.state(one[0]) for one in (sent, good, deferred)]
        assert states == ["sent", "sent", "held"]
        assert house.attempts(good[0]) == ["sent"]
        assert house.attempts(sent[0]) == house.attempts(deferred[0]) == []
        assert house.journal.row(deferred[0]).error_class == "internal_error"
        assert len(relay.mails) == 3  # each once
        assert gateway._lease.spool.room == 8 * places


async def test_an_interrupted_turn_that_fails_is_made_good_without_another_task(
    house: House,
) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        faults = Faults(gateway)
        [id_] = await house.add("a@example.org")
        faults.lose = ["claims"]
        faults.hold()
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await asyncio.to_thread(faults.waiting.wait, 5)
        await interrupt(task)
        faults.free()
        await until(lambda: house.state(id_) == "queued")
        assert relay.mails == []


async def test_stragglers_are_settled_after_the_deadline_without_another_task(
    house: House,
) -> None:
    release = asyncio.Event()

    async def slow(heard: Heard) -> str:
        await release.wait()
        return "250 2.0.0 Ok"

    async with ScriptedRelay(DOT=slow) as relay:
        gateway = await house.open({"main": relay})
        ids = await house.add("a@example.org", "b@example.org")
        assert await gateway.deliver(NORMAL, soon()) == {}
        assert await gateway.due() == frozenset()
        release.set()
        await until(lambda: house.states() == {"sent": 2})
        assert [house.attempts(i) for i in ids] == [["sent"], ["sent"]]
        assert house.rings == []


async def test_a_stop_during_a_turn_leaves_nothing_claimed(house: House) -> None:
    """The turn at the journal claims; that becomes known only when all seemed to be over."""
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        faults = Faults(gateway)
        await house.add("a@example.org", "b@example.org")
        faults.hold()
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await asyncio.to_thread(faults.waiting.wait, 5)
        stopping = asyncio.create_task(gateway.stop(3))
        await asyncio.sleep(0.2)
        faults.free()
        await stopping
        await task
        house.gone(gateway)
        sent = len(relay.mails)
        assert house.states() == {k: n for k, n in (("sent", sent), ("queued", 2 - sent)) if n}
        assert house.uncertain() == 0
        house.nothing_is_left_behind()


async def test_a_stop_at_once_during_a_turn_sends_nothing_and_doubts_nothing(
    house: House,
) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        faults = Faults(gateway)
        await house.add("a@example.org", "b@example.org")
        faults.hold()
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await asyncio.to_thread(faults.waiting.wait, 5)
        stopping = asyncio.create_task(gateway.stop(0))
        await asyncio.sleep(0.2)
        faults.free()
        await stopping
        await task
        house.gone(gateway)
        assert house.states() == {"queued": 2}
        assert relay.mails == []
        assert house.uncertain() == 0
        house.nothing_is_left_behind()


async def test_a_stop_with_a_claim_of_unknown_end_gives_it_back(house: House) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        faults = Faults(gateway)
        await house.add("a@example.org")
        faults.lose = ["claims"]
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await until(lambda: faults.lost)
        await gateway.stop(1)
        await task
        house.gone(gateway)
        assert house.states() == {"queued": 1}
        assert relay.mails == []
        house.nothing_is_left_behind()


async def test_a_stop_while_the_journal_is_away_leaves_the_evidence(house: House) -> None:
    """What was claimed by a transaction of unknown end is proven unsent to who comes next."""
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        faults = Faults(gateway)
        [id_] = await house.add("a@example.org")
        faults.lose = ["claims"]
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await until(lambda: faults.lost)
        faults.away = True
        await gateway.stop(0)
        await task
        house.gone(gateway)
        assert house.state(id_) == "sending"
        # The process is over, and with it its lock.
        gateway._lease.spool.leave()
        other = await house.open({"main": relay})
        await until(lambda: house.state(id_) == "queued")
        assert house.uncertain() == 0
        assert await other.deliver(NORMAL, soon()) == {"sent": 1}
        assert len(relay.mails) == 1
        await other.stop(1)
        house.gone(other)
        house.nothing_is_left_behind()


async def test_a_lease_under_which_something_is_claimed_is_not_given_back(house: House) -> None:
    """Should anything be claimed all the same, the next process finds lease and spool."""
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        [id_] = await house.add("a@example.org")
        house.journal.claim(gateway._lease.id)
        await gateway.stop(0)
        house.gone(gateway)
        await house.open({"main": relay})
        await until(lambda: house.state(id_) == "queued")
        assert house.kinds(id_) == ["queued"]
        assert house.uncertain() == 0


@pytest.mark.parametrize("word", ["GREETING", "MAIL", "DATA"])
async def test_a_stop_before_the_dot_sends_nothing_and_costs_no_attempt(
    house: House, word: str
) -> None:
    async with ScriptedRelay(offers=(), **{word: "hang"}) as relay:
        gateway = await house.open({"main": relay})
        [id_] = await house.add("a@example.org")
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await until(lambda: relay.heard and (word == "GREETING" or word in relay.heard[0].verbs))
        await gateway.stop(0.2)
        assert await task in ({}, {"untouched": 1})
        house.gone(gateway)
        assert house.state(id_) == "queued"
        assert house.attempts(id_) == []
        assert relay.mails == []
        house.nothing_is_left_behind()


async def test_a_stop_after_the_dot_is_uncertain(house: House) -> None:
    async with ScriptedRelay(DOT="hang") as relay:
        gateway = await house.open({"main": relay})
        [id_] = await house.add("a@example.org")
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await until(lambda: relay.mails)
        await gateway.stop(0.2)
        await task
        house.gone(gateway)
        assert house.kinds(id_) == ["uncertain", "queued"]
        assert house.attempts(id_) == ["uncertain"]
        house.nothing_is_left_behind()


async def test_the_heart_beats_while_conversations_end(house: House) -> None:
    """A drain that is longer than a lease: nobody takes the process for dead meanwhile."""

    async def slow(heard: Heard) -> str:
        await asyncio.sleep(6.5)
        return "250 2.0.0 Ok"

    async with ScriptedRelay(DOT=slow) as relay:
        await house.open({"main": relay}, worker={"lease": 5})
        [id_] = await house.add("a@example.org")
        gateway = await house.open({"main": relay}, worker={"lease": 5})
        task = asyncio.create_task(gateway.deliver(NORMAL, soon(1)))
        await until(lambda: relay.mails)
        await gateway.stop(9)
        await task
        house.gone(gateway)
        assert house.kinds(id_) == ["sent"]
        assert house.uncertain() == 0
