"""What becomes of a message on its way: routes, limits, throttles, ends."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from mailgate.delivery import pipeline
from mailgate.gateway import Gateway
from mailgate.limits.rules import Grant, LimiterAway, Refusal
from mailgate.model.state import RING_AHEAD, Lane, State
from tests.contract.journal.rig import arrival
from tests.integration.delivery.house import House, soon, until
from tests.integration.smtp.scripted import Heard, ScriptedRelay

NORMAL = Lane.NORMAL


# --- routes -----------------------------------------------------------------------


async def test_the_next_relay_takes_over_within_the_same_task(house: House) -> None:
    async with ScriptedRelay(GREETING="554 5.3.2 no") as down, ScriptedRelay() as up:
        gateway = await house.open({"down": down, "up": up})
        [id_] = await house.add("a@example.org", route=("down", "up"))
        begun = time.monotonic()
        counts = await gateway.deliver(NORMAL, soon())
        assert time.monotonic() - begun < 1
        assert counts == {"defer": 1, "sent": 1}
        assert house.attempts(id_) == ["defer", "sent"]
        assert len(up.mails) == 1


async def test_with_all_relays_down_it_waits_and_begins_with_the_first_again(
    house: House,
) -> None:
    async with (
        ScriptedRelay(GREETING="421 4.3.2 no") as one,
        ScriptedRelay(GREETING="421 4.3.2 no") as two,
    ):
        gateway = await house.open({"one": one, "two": two})
        [id_] = await house.add("a@example.org", route=("one", "two"))
        await gateway.deliver(NORMAL, soon())
        row = house.journal.one(
            "SELECT r.state, r.due_at, b.route FROM recipients r JOIN buckets b"
            " ON b.id = r.bucket_id WHERE r.id = :id",
            id=id_,
        )
        assert row.route == "one,two"
        assert row.state in ("deferred", "queued")
        assert row.due_at > house.journal.database.now() - 1000


async def test_a_message_too_large_for_one_relay_goes_by_the_next(small_house: House) -> None:
    house = small_house
    async with (
        ScriptedRelay(offers=("SIZE 100",)) as small,
        ScriptedRelay(offers=(), MAIL="552 5.3.4 Message size exceeds fixed limit") as strict,
        ScriptedRelay(offers=("SIZE 1000000",)) as large,
    ):
        gateway = await house.open({"small": small, "strict": strict, "large": large})
        [id_] = await house.add("a@example.org", route=("small", "strict", "large"))
        assert await gateway.deliver(NORMAL, soon()) == {"fail": 2, "sent": 1}
        assert house.state(id_) == "sent"
        # Nothing was said to the first, so it counts for nothing.
        assert "MAIL" not in small.heard[0].verbs
        assert house.attempts(id_) == ["fail", "sent"]
        notes = [
            json.loads(e.detail or "{}").get("note", "")
            for e in house.journal.all("SELECT detail FROM events ORDER BY seq")
        ]
        assert any("small: " in note and "at most 100" in note for note in notes)
        assert any("strict: 552 5.3.4" in note for note in notes)


async def test_a_message_too_large_for_every_relay_fails_and_blames_no_address(
    small_house: House,
) -> None:
    house = small_house
    async with (
        ScriptedRelay(offers=("SIZE 100",)) as one,
        ScriptedRelay(offers=("SIZE 200",)) as two,
    ):
        gateway = await house.open({"one": one, "two": two})
        [id_] = await house.add("a@example.org", route=("one", "two"))
        await gateway.deliver(NORMAL, soon())
        row = house.journal.row(id_)
        assert (row.state, row.error_class) == ("failed", "too_large")
        assert one.mails == two.mails == []


async def test_a_shared_message_is_one_transaction_each_and_the_same_mail_for_all(
    house: House,
) -> None:
    async with ScriptedRelay(RCPT=["250 Ok", "451 4.3.0 later", "250 Ok"]) as relay:
        gateway = await house.open(
            {"main": relay}, relays={"main": {"max_connections": 1}}, worker={"conversations": 1}
        )
        ids = await house.add("a@example.org", "b@example.org", "c@example.org", kind="to")
        counts = await gateway.deliver(NORMAL, soon())
        assert counts == {"sent": 2, "defer": 1}
        assert sorted(house.state(i) for i in ids) == ["deferred", "sent", "sent"]
        await asyncio.sleep(0.3)
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}
        mails = [mail for mail in relay.mails if mail]
        assert len(mails) == 3
        assert len(set(mails)) == 1
        rcpts = [c for heard in relay.heard for c in heard.commands if c.startswith("RCPT")]
        assert len(rcpts) == 4
        assert len(set(rcpts)) == 3


# --- what cannot be rendered ---------------------------------------------------------


async def test_a_template_that_is_gone_is_held_and_the_neighbour_is_sent(
    small_house: House,
) -> None:
    house = small_house
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        from mailgate.journal.letters import letter_text
        from mailgate.model.address import Address

        body = letter_text(
            sender=Address("shop@example.com"),
            mail_from="shop@example.com",
            domain="example.com",
            template="no_such_template",
            data={},
        )
        [lost] = await house.add("a@example.org", key="lost", body=body, template="gone")
        await house.add("b@example.org", key="good")
        counts = await gateway.deliver(NORMAL, soon())
        assert counts["sent"] == 1
        assert house.state(lost) in ("held", "failed")
        assert house.journal.row(lost).error_class
        assert len(relay.mails) == 1


async def test_a_fault_of_our_own_holds_the_message_and_loses_nobody(house: House) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        render = gateway._renderer.render

        def broken(letter: Any) -> bytes:
            if "bad" in letter.subject:
                raise ZeroDivisionError
            return render(letter)

        gateway._renderer.render = broken  # type: ignore[method-assign]
        [bad] = await house.add("a@example.org", key="bad")
        [good] = await house.add("b@example.org", key="good")
        assert await gateway.deliver(NORMAL, soon()) == {"hold": 1, "sent": 1}
        assert (house.state(bad), house.journal.row(bad).error_class) == ("held", "internal_error")
        assert house.state(good) == "sent"
        assert gateway._lease.spool.room == 10 * 8


async def test_an_outcome_that_cannot_be_judged_is_written_all_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours there would leave it claimed for as long as the process lives."""

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    async with ScriptedRelay(DOT=["250 2.0.0 Ok", "450 4.2.0 later"]) as relay:
        gateway = await house.open({"main": relay})
        monkeypatch.setattr("mailgate.delivery.pipeline.settle", broken)
        [sent] = await house.add("a@example.org", key="sent")
        [later] = await house.add("late@example.org", key="later")
        await gateway.deliver(NORMAL, soon())
        # What was past its dot is not known to be undelivered by who could not judge it.
        assert house.state(sent) == "sent"
        assert (house.state(later), house.journal.row(later).error_class) == (
            "uncertain",
            "internal_error",
        )
        assert gateway._pipeline is not None
        assert gateway._pipeline.unsettled == 0


# --- expiry ------------------------------------------------------------------------------


async def test_a_crowd_of_expired_ones_delays_nobody(house: House) -> None:
    """They stand in front of the queue, as after an outage."""
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        now = house.journal.database.now()
        emails = [f"n{n}@example.org" for n in range(95)]
        old = await house.add(*emails, key="old", expires_at=now - 1)
        [fresh] = await house.add("a@example.org", key="fresh", expires_at=now + 60_000)
        assert await gateway.deliver(NORMAL, soon()) == {"expired": 95, "sent": 1}
        assert house.state(fresh) == "sent"
        assert house.kinds(old[0]) == ["expired"]
        assert house.attempts(old[0]) == []


async def test_what_would_expire_before_its_next_attempt_expires_now(house: House) -> None:
    async with ScriptedRelay(RCPT="451 4.3.0 later") as relay:
        gateway = await house.open(
            {"main": relay}, streams={"transactional": {"retry": {"first": 60, "cap": 60}}}
        )
        now = house.journal.database.now()
        [id_] = await house.add("a@example.org", expires_at=now + 30_000)
        await gateway.deliver(NORMAL, soon())
        assert house.kinds(id_) == ["expired"]
        assert house.attempts(id_) == ["defer"]


# --- limits ----------------------------------------------------------------------------------


class Doorkeeper:
    """A limiter that does as the test says, and counts what was asked."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.late = 0

    async def reserve(self, asks: Any, horizon: float) -> list[Grant | Refusal]:
        if self.away:
            raise LimiterAway("no store")
        out: list[Grant | Refusal] = []
        for _ in asks:
            self.asked += 1
            now = time.monotonic()
            if self.late:
                self.late -= 1
                out.append(Grant(now - 2, now - 1))
            else:
                out.append(Grant(now, now + 1))
        return out

    async def peek(self, keys: Any) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        return None


async def limited(house: House, relay: ScriptedRelay, keeper: Doorkeeper) -> Gateway:
    gateway = await house.open({"main": relay}, relays={"main": {"rate": "100/s"}})
    pipeline = gateway._pipeline
    assert pipeline is not None
    pipeline._limiter = keeper
    pipeline._taker._limiter = keeper
    return gateway


async def test_a_permit_that_came_too_late_is_asked_for_again(small_house: House) -> None:
    async with ScriptedRelay() as relay:
        keeper = Doorkeeper()
        gateway = await limited(small_house, relay, keeper)
        keeper.late = 2
        await small_house.add("a@example.org")
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}
        assert keeper.asked == 3


async def test_nothing_is_sent_without_the_store_of_the_limits_and_all_when_it_is_back(
    small_house: House,
) -> None:
    async with ScriptedRelay() as relay:
        keeper = Doorkeeper()
        gateway = await limited(small_house, relay, keeper)
        keeper.away = True
        [id_] = await small_house.add("a@example.org")
        assert await gateway.deliver(NORMAL, soon(0.5)) == {}
        assert small_house.state(id_) == "queued"
        assert relay.heard == []
        keeper.away = False
        await asyncio.sleep(1)
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}


async def test_a_store_that_goes_away_before_the_moment_costs_no_attempt(
    small_house: House,
) -> None:
    async with ScriptedRelay() as relay:
        keeper = Doorkeeper()
        gateway = await limited(small_house, relay, keeper)
        keeper.late = 1
        real = keeper.reserve

        async def once(asks: Any, horizon: float) -> list[Grant | Refusal]:
            said = await real(asks, horizon)
            keeper.away = True
            return said

        keeper.reserve = once  # type: ignore[method-assign]
        [id_] = await small_house.add("a@example.org")
        assert await gateway.deliver(NORMAL, soon(0.5)) == {"untouched": 1}
        assert small_house.attempts(id_) == []
        assert relay.mails == []


async def test_each_mail_command_has_a_permit_of_its_own(small_house: House) -> None:
    """A kept connection turns out to be closed, and the message goes on a new one: the relay may
    have counted both."""
    async with ScriptedRelay(MAIL=["250 Ok", "421 4.3.2 idle for too long", "250 Ok"]) as relay:
        keeper = Doorkeeper()
        gateway = await limited(small_house, relay, keeper)
        await small_house.add("a@example.org", key="one")
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}
        await small_house.add("b@example.org", key="two")
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}
        said = [c for heard in relay.heard for c in heard.commands if c.startswith("MAIL")]
        assert len(said) == 3
        assert keeper.asked == 3


# --- throttles -------------------------------------------------------------------------------


@pytest.mark.parametrize("on_limit", ["defer", "drop"])
async def test_a_throttled_recipient_waits_or_is_dropped(house: House, on_limit: str) -> None:
    async with ScriptedRelay() as relay:
        throttle = [{"limit": 1, "window": 1.5, "on_limit": on_limit}]
        gateway = await house.open(
            {"main": relay}, streams={"transactional": {"throttle": throttle}}
        )
        ids = [
            *await house.add("a@example.org", key="one"),
            *await house.add("A@example.org", key="two"),
            *await house.add("b@example.org", key="three"),
        ]
        counts = await gateway.deliver(NORMAL, soon())
        assert counts == {"sent": 2, "throttled" if on_limit == "drop" else "waiting": 1}
        assert house.state(ids[2]) == "sent"
        later = {"drop": "throttled", "defer": "queued"}[on_limit]
        assert sorted(house.state(i) for i in ids[:2]) == sorted([later, "sent"])
        if on_limit == "defer":
            # Told a time when the first was under way, it may have to be told another.
            deadline = time.monotonic() + 5
            while len(relay.mails) < 3 and time.monotonic() < deadline:
                await until(lambda: house.journal.heads(), 3)
                await gateway.deliver(NORMAL, soon(0.5))
        assert len(relay.mails) == (2 if on_limit == "drop" else 3)


async def test_a_retry_is_not_throttled_by_its_own_first_attempt(house: House) -> None:
    async with ScriptedRelay(RCPT=["451 4.3.0 later", "250 Ok"]) as relay:
        throttle = [{"limit": 1, "window": 60, "on_limit": "drop"}]
        gateway = await house.open(
            {"main": relay}, streams={"transactional": {"throttle": throttle}}
        )
        [id_] = await house.add("a@example.org")
        await gateway.deliver(NORMAL, soon(0.15))
        await until(lambda: house.attempts(id_), 5)
        assert house.attempts(id_) == ["defer"]
        await asyncio.sleep(0.3)
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}
        assert house.attempts(id_) == ["defer", "sent"]


# --- what is sensitive ------------------------------------------------------------------------


def traces(house: House) -> list[str]:
    """The tables that still know the secret."""
    where = {
        "messages": "CAST(body AS text) LIKE '%s3cret%'",
        "recipients": "own LIKE '%s3cret%'",
        "events": "detail LIKE '%s3cret%'",
        "attempts": "reply LIKE '%s3cret%'",
    }
    found = [table for table, condition in where.items() if house.journal.count(table, condition)]
    return found + ["renderings"] * bool(house.journal.count("renderings"))


async def test_a_sensitive_message_is_forgotten_once_all_have_it(house: House) -> None:
    async with ScriptedRelay(RCPT=["250 Ok", "451 4.3.0 later", "250 Ok"]) as relay:
        gateway = await house.open({"main": relay}, relays={"main": {"max_connections": 1}})
        own = '{"data": {"code": "s3cret"}}'
        await house.add("a@example.org", "b@example.org", sensitive=True, own=own)
        await gateway.deliver(NORMAL, soon(0.15))
        assert "messages" in traces(house)
        assert "renderings" in traces(house)
        await asyncio.sleep(0.3)
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}
        assert traces(house) == []


async def test_a_cancelled_sensitive_message_is_forgotten(house: House) -> None:
    from mailgate.journal.surgery import Act, Surgery

    ids = await house.store(
        arrival("a", sensitive=True), arrival("b", sensitive=True), arrival("c")
    )
    surgery = Surgery(house.journal.database)
    act = Act("ann@host", "cancel", "a test")
    moved = house.journal.database.run_now(
        lambda c: surgery.move(c, [ids[0], ids[2]], State.CANCELLED, act)
    )
    assert len(moved.recipient_ids) == 2
    kept = house.journal.all("SELECT id FROM messages WHERE body LIKE '%s3cret%' ORDER BY id")
    assert len(kept) == 2  # b waits, c is not sensitive


# --- lanes ----------------------------------------------------------------------------------


async def test_a_task_of_a_lane_serves_those_above_it_and_none_below(house: House) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        for lane in Lane:
            await house.add(f"{lane.value}@example.org", key=lane.value, lane=lane)
        assert await gateway.deliver(Lane.NORMAL, soon()) == {"sent": 2}
        assert await gateway.due() == {Lane.BULK}


async def test_a_task_with_work_left_rings_for_the_next(house: House) -> None:
    async def slow(heard: Heard) -> str:
        await asyncio.sleep(0.1)
        return "250 Ok"

    async with ScriptedRelay(DOT=slow) as relay:
        gateway = await house.open({"main": relay}, worker={"conversations": 2})
        await house.add(*[f"n{n}@example.org" for n in range(20)])
        counts = await gateway.deliver(NORMAL, soon(0.35))
        assert 2 <= counts["sent"] < 20
        assert NORMAL in house.rings


# --- rings that are ahead of their mail ---------------------------------------------------


async def test_a_task_whose_ring_was_ahead_of_its_mail_finds_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long a busy machine's disk takes for it.
    monkeypatch.setattr(pipeline, "EXPECT", 2.0)
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await asyncio.sleep(RING_AHEAD / 2)
        [id_] = await house.add("a@example.org")
        assert await task == {"sent": 1}
        assert house.state(id_) == "sent"


async def test_also_where_a_limit_has_closed_what_else_waits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedRelay() as relay:
        paced = {"other": {"rate": "1/h"}}
        gateway = await house.open({"main": relay, "other": relay}, relays=paced)
        await house.add("x@example.org", "y@example.org", key="slow", route=("other",))
        assert (await gateway.deliver(NORMAL, soon()))["sent"] == 1
        monkeypatch.setattr(pipeline, "EXPECT", 2.0)
        task = asyncio.create_task(gateway.deliver(NORMAL, soon()))
        await asyncio.sleep(RING_AHEAD / 2)
        begun = time.monotonic()
        [id_] = await house.add("a@example.org")
        await until(lambda: house.state(id_) == "sent", 1.5)
        assert time.monotonic() - begun < 1
        await task


async def test_a_task_without_mail_is_over_at_once_all_the_same(house: House) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay})
        begun = time.monotonic()
        assert await gateway.deliver(NORMAL, soon()) == {}
        assert RING_AHEAD < time.monotonic() - begun < 0.5
