"""The loop over real brokers and both databases: at least once, in order, never in the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio
import redis

from mailgate.config.shape import Config
from mailgate.events import publisher as publishing
from mailgate.events.document import Post
from mailgate.events.outlet import OutletAway
from mailgate.events.publisher import Publisher
from mailgate.journal import outbox
from mailgate.metrics import families
from mailgate.metrics.tally import Tally, Totals, together
from mailgate.model.state import State
from mailgate.model.value import replace
from tests.contract.journal.rig import BUCKET, Rig, arrival, attempt, settlement
from tests.integration.events.listeners import Listener
from tests.servers import Valkey

Run = Callable[..., "Running"]


class Running:
    """A publisher at work on the test's loop."""

    def __init__(self, publisher: Publisher, tally: Tally) -> None:
        self.tally = tally
        self.publisher = publisher
        self.task = asyncio.create_task(publisher.run())

    def count(self) -> float:
        name = families.EVENTS_PUBLISHED.name
        return sum(n for (one, _), n in self.totals.numbers.items() if one == name)

    @property
    def totals(self) -> Totals:
        return together([self.tally.snapshot()])

    @property
    def away(self) -> bool:
        return bool(self.totals.number(families.EVENTS_AWAY))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Run]:
    """``run(journal, url)`` publishes until the test ends."""
    made: list[Running] = []

    def begin(journal: Rig, url: str, *, more: dict[str, Any] | None = None, **how: Any) -> Running:
        said = {"intake": {"url": url}, "journal": {"url": journal.url}} | (more or {})
        tally = Tally()
        publisher = Publisher(Config.model_validate(said), journal.database, tally=tally, **how)
        made.append(Running(publisher, tally))
        return made[-1]

    yield begin
    for one in made:
        await one.stop()


async def until(true: Callable[[], bool], within: float = 15.0) -> None:
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.02)


def nothing_waits(journal: Rig) -> bool:
    return journal.database.read_now(outbox.waiting).count == 0


def pairs(documents: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(one["event"], one["message"]["identity"]) for one in documents]


async def test_what_happens_is_told_on_the_producers_broker(
    journal: Rig, listener: Callable[..., Listener], run: Run
) -> None:
    ear = listener("shop", "other")
    running = run(journal, ear.url)
    journal.store(arrival("a"), arrival("b", bucket=replace(BUCKET, producer="other")))
    claims = journal.claim(journal.lease())
    journal.settle(*(settlement(c, State.SENT, attempt=attempt("sent", code=250)) for c in claims))
    await until(lambda: nothing_waits(journal))
    assert pairs(ear.wait("shop", 2)) == [("accepted", "key:a"), ("sent", "key:a")]
    assert pairs(ear.wait("other", 2)) == [("accepted", "key:b"), ("sent", "key:b")]
    await until(lambda: running.count() == 4)


async def test_a_backlog_of_more_than_a_batch_goes_out_in_order(
    valkey: Valkey, journal: Rig, run: Run
) -> None:
    journal.add(1200)
    run(journal, valkey.broker_url)
    await until(lambda: nothing_waits(journal))
    with redis.Redis.from_url(valkey.socket_url) as client:
        assert client.xlen("mailgate:events:shop") == 1200


async def test_one_publishes_and_another_takes_over(
    valkey: Valkey, processes: Callable[[], Rig], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_ASK", 0.05)
    journal = processes()
    both = [run(processes(), valkey.broker_url) for _ in range(2)]
    journal.add(3, prefix="a")
    await until(lambda: sum(one.count() for one in both) == 3)
    first, second = sorted(both, key=lambda one: -one.count())
    assert (first.count(), second.count()) == (3, 0)
    await first.stop()
    journal.add(2, prefix="b")
    await until(lambda: second.count() == 2)


async def test_a_stand_in_publishes_when_nobody_else_does(
    valkey: Valkey, journal: Rig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_ASK", 0.05)
    journal.add(1)
    running = run(journal, valkey.broker_url, patience=0.4)
    await asyncio.sleep(0.25)
    assert running.count() == 0
    await until(lambda: running.count() == 1)


async def test_a_broker_that_is_away_holds_nothing_up_and_gets_all_when_it_is_back(
    valkey: Valkey, journal: Rig, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "mailgate.events")
    running = run(journal, valkey.broker_url)
    journal.add(1, prefix="a")
    await until(lambda: nothing_waits(journal))
    valkey.kill()
    journal.add(3, prefix="b")
    await until(lambda: "events wait: the broker is away" in caplog.messages)
    journal.add(3, prefix="c")
    found = journal.database.read_now(outbox.waiting)
    assert found.count == 6
    assert running.away
    valkey.start()
    await until(lambda: nothing_waits(journal))
    with redis.Redis.from_url(valkey.socket_url) as client:
        assert client.xlen("mailgate:events:shop") == 6
    assert caplog.messages.count("events wait: the broker is away") == 1
    assert caplog.messages[-1] == "events go out again"
    assert not running.away


async def test_what_was_sent_but_not_written_down_is_sent_again(
    journal: Rig, listener: Callable[..., Listener], run: Run
) -> None:
    """As after a kill between the two: the same events with the same ids."""
    ear = listener("shop")
    journal.add(5)

    class Forgetful:
        def __init__(self, out: Any) -> None:
            self._out, self._first = out, True
            self.open, self.close, self.beat = out.open, out.close, out.beat

        async def send(self, posts: Sequence[Post]) -> frozenset[str | None]:
            await self._out.send(posts)
            if self._first:
                self._first = False
                raise OutletAway("the answer was lost")
            return frozenset()

    made: list[Forgetful] = []

    def once(config: Config) -> Any:
        if made:
            return publishing.outlet(config)
        made.append(Forgetful(publishing.outlet(config)))
        return made[-1]

    run(journal, ear.url, make=once)
    await until(lambda: nothing_waits(journal))
    ids = [one["id"] for one in ear.wait("shop", 10)]
    assert ids[:5] == ids[5:]
    assert len(set(ids)) == 5


async def test_a_refused_producer_waits_alone_and_catches_up(
    valkey: Valkey, journal: Rig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_REFUSED_AGAIN", 0.2)
    other = replace(BUCKET, producer="other")
    with redis.Redis.from_url(valkey.socket_url, decode_responses=True) as client:
        client.set("mailgate:events:shop", "mine")
        run(journal, valkey.broker_url)
        journal.store(arrival("a"), arrival("b", bucket=other))
        await until(lambda: client.xlen("mailgate:events:other") == 1)
        journal.store(arrival("c"), arrival("d", bucket=other))
        await until(lambda: client.xlen("mailgate:events:other") == 2)
        assert journal.database.read_now(outbox.waiting).refused == ("shop",)
        client.delete("mailgate:events:shop")
        await until(lambda: journal.database.read_now(outbox.waiting).refused == ())
        journal.store(arrival("e"))
        await until(lambda: client.xlen("mailgate:events:shop") >= 3)
        told = [fields["event"] for _, fields in client.xrange("mailgate:events:shop")]
    assert [t.partition('"identity":"key:')[2][0] for t in told] == ["a", "c", "e"]


async def test_an_event_without_a_document_is_set_aside_and_the_others_go_on(
    valkey: Valkey, journal: Rig, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    journal.store(arrival("a"), arrival("b"), arrival("c"))
    # A time that no calendar has.
    journal.sql("UPDATE events SET at = 999999999999999999 WHERE id = 2")
    run(journal, valkey.broker_url)
    await until(lambda: nothing_waits(journal))
    with redis.Redis.from_url(valkey.socket_url, decode_responses=True) as client:
        told = [fields["event"] for _, fields in client.xrange("mailgate:events:shop")]
    assert [t.partition('"identity":"key:')[2][0] for t in told] == ["a", "c"]
    reason, detail = journal.one("SELECT reason, detail FROM actions WHERE verb = 'event-aside'")
    assert reason.startswith("ValueError in _second")
    assert json.loads(detail)["event"] == 2
    assert "no document can be made of an event" in caplog.text


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"events": {"kinds": ["sent"]}}, ["sent"]),
        ({"producers": {"shop": {"events": False}}}, []),
        ({"producers": {"other": {"events": False}}}, ["accepted", "sent"]),
    ],
)
async def test_only_what_is_asked_for_is_published(
    valkey: Valkey, journal: Rig, run: Run, more: dict[str, Any], told: list[str]
) -> None:
    run(journal, valkey.broker_url, more=more)
    journal.add(1)
    [claim] = journal.claim(journal.lease())
    journal.settle(settlement(claim, State.SENT, attempt=attempt("sent", code=250)))
    await until(lambda: nothing_waits(journal))
    with redis.Redis.from_url(valkey.socket_url, decode_responses=True) as client:
        found = [fields["event"] for _, fields in client.xrange("mailgate:events:shop")]
    assert [one.partition('"event":"')[2].partition('"')[0] for one in found] == told


async def test_what_happens_while_events_are_off_is_not_told_later(
    valkey: Valkey, journal: Rig, run: Run
) -> None:
    journal.add(3, prefix="a")
    off = run(journal, valkey.broker_url, more={"events": {"enabled": False}})
    await until(lambda: nothing_waits(journal))
    await off.stop()
    run(journal, valkey.broker_url)
    journal.add(1, prefix="b")
    with redis.Redis.from_url(valkey.socket_url) as client:
        await until(lambda: bool(client.exists("mailgate:events:shop")))
        assert client.xlen("mailgate:events:shop") == 1


async def test_whoever_loses_the_lease_stops(valkey: Valkey, journal: Rig, run: Run) -> None:
    running = run(journal, valkey.broker_url)
    journal.add(1, prefix="a")
    await until(lambda: nothing_waits(journal))
    far = journal.database.now() + 60_000
    journal.sql("UPDATE outbox SET holder = 99, until = :far", far=far)
    journal.add(1, prefix="b")
    await asyncio.sleep(0.6)
    # What it had in hand may have gone out; nothing is written down any more.
    assert journal.one("SELECT reached, holder FROM outbox") == (1, 99)
    assert not running.task.done()


async def test_the_lease_goes_back_at_the_end(valkey: Valkey, journal: Rig, run: Run) -> None:
    running = run(journal, valkey.broker_url)
    journal.add(1)
    await until(lambda: nothing_waits(journal))
    with contextlib.suppress(asyncio.CancelledError):
        await running.stop()
    now = journal.database.now()
    assert journal.database.read_now(lambda c: outbox.free(c, now))


async def test_a_journal_that_is_away_is_waited_for(
    valkey: Valkey, journal: Rig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailgate.journal.database import JournalAway
    from mailgate.journal.outbox import Outbox

    looks = iter([JournalAway("gone")] * 2)
    hold = Outbox.hold

    def sometimes(self: Outbox, *args: Any) -> Any:
        for error in looks:
            raise error
        return hold(self, *args)

    monkeypatch.setattr(Outbox, "hold", sometimes)
    running = run(journal, valkey.broker_url)
    await until(lambda: running.away)
    # Nothing is to be told, and all is well again.
    await until(lambda: not running.away)
    journal.add(1)
    await until(lambda: nothing_waits(journal))


async def test_events_are_switched_on_and_off_while_it_runs(
    valkey: Valkey, journal: Rig, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_SPAN", 400)
    running = run(journal, valkey.broker_url, more={"events": {"enabled": False}})
    journal.add(1, prefix="a")
    await until(lambda: nothing_waits(journal))
    said = {"intake": {"url": valkey.broker_url}, "journal": {"url": journal.url}}
    running.publisher.adopt(Config.model_validate(said))
    await asyncio.sleep(0.6)
    journal.add(2, prefix="b")
    await until(lambda: running.count() == 2)
    running.publisher.adopt(Config.model_validate(said | {"events": {"enabled": False}}))
    journal.add(1, prefix="c")
    await until(lambda: nothing_waits(journal))
    assert running.count() == 2
