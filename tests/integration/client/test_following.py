"""Commands, their answers, outcomes and events, on both brokers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mailgate.client import Client, Message, NoAnswer, captured
from tests.integration.client.gateway import Gateway, event, state, until
from tests.servers import Valkey


@pytest.fixture(params=["valkey", "rabbitmq"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Callable[..., Gateway]]:
    """``gateway(answers)`` stands for mailgate on a broker; ``.url`` is for producers."""
    url = request.getfixturevalue(request.param).url
    made: list[Gateway] = []

    def start(answers: Any = lambda document: []) -> Gateway:
        made.append(Gateway(url, answers))
        made[-1].url = url  # type: ignore[attr-defined]
        return made[-1]

    yield start
    for one in made:
        one.close()


def client_of(server: Any) -> Client:
    return Client(server.url, producer="shop")


def sent(n: int, **more: Any) -> dict[str, Any]:
    who = {"id": f"r{n}", "n": n, "email": f"r{n}@example.com"}
    return event("sent", f"r{n}-3", recipient=who, seq=3, final=True, **more)


def test_a_command_is_published_and_answered_where_one_waits(gateway) -> None:
    server = gateway(lambda d: [state(d, "done", states=["cancelled"])])
    with client_of(server) as client:
        receipt = client.publish(Message(to="ann@example.com", template="welcome", id="order-1"))
        assert client.cancel("order-1", reason="changed her mind") is None
        when = datetime(2030, 1, 31, 9, tzinfo=UTC)
        client.reschedule(receipt, send_at=when)
        answer = client.cancel(idempotency_key="k1", recipient="ann@example.com", wait=10)
    assert answer is not None
    assert answer["command"]["result"] == "done"
    _, first, second, third = server.seen
    assert first["cancel"] == {"id": "order-1", "reason": "changed her mind"}
    assert second["reschedule"] == {
        "idempotency_key": "order-1",
        "send_at": "2030-01-31T09:00:00+00:00",
    }
    assert third["cancel"] == {"idempotency_key": "k1", "recipient": "ann@example.com"}
    assert {one["producer"] for one in server.seen} == {"shop"}
    assert len({one["id"] for one in (first, second, third)}) == 3


def test_an_early_answer_is_followed_by_another(gateway) -> None:
    server = gateway(lambda d: [state(d, "early"), state(d, "done", states=["queued"])])
    with client_of(server) as client:
        answer = client.ask("order-1")
    assert answer["command"]["recipients"][0]["state"] == "queued"


def test_no_answer_is_an_error_that_says_what_was_heard(gateway) -> None:
    server = gateway(lambda d: [state(d, "early")])
    with client_of(server) as client, pytest.raises(NoAnswer) as caught:
        client.ask("order-1", wait=0.3)
    assert caught.value.last is not None
    assert caught.value.last["command"]["result"] == "early"


def test_an_outcome_is_waited_for_whatever_was_missed_before(gateway) -> None:
    final = threading.Event()

    def answers(document: dict[str, Any]) -> list[dict[str, Any]]:
        if final.is_set():
            return [state(document, "done", states=["sent", "bounced"], final=True)]
        return [state(document, "done", states=["sent", "sending"])]

    server = gateway(answers)

    def finish() -> None:
        until(lambda: bool(server.seen))
        final.set()
        server.tell(sent(7), sent(0), sent(1))

    teller = threading.Thread(target=finish)
    teller.start()
    begun = time.monotonic()
    with client_of(server) as client:
        outcome = client.wait_for(idempotency_key="k1", timeout=10)
    teller.join()
    assert time.monotonic() - begun < 5
    states = [one["state"] for one in outcome["command"]["recipients"]]
    assert states == ["sent", "bounced"]
    assert len(server.seen) == 2  # it asked, it heard, it asked


async def test_coroutines_wait_too_and_can_be_cancelled(gateway) -> None:
    server = gateway(lambda d: [state(d, "done", states=["sending"])])
    client = client_of(server)
    assert (await client.aask("order-1"))["command"]["result"] == "done"
    with pytest.raises(NoAnswer) as caught:
        await client.await_for("order-1", timeout=0.3)
    assert caught.value.last is not None
    waiting = asyncio.create_task(client.await_for("order-1", timeout=60))
    await asyncio.sleep(0.3)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await client.aclose()


def test_every_event_comes_and_what_was_in_hand_comes_again(gateway) -> None:
    server = gateway()
    with client_of(server) as client:
        assert list(client.events(timeout=0.2)) == []  # the queue is there from now on
        server.tell(*(sent(n) for n in range(5)))
        for event_ in client.events(timeout=5):
            if event_.id == "r2-3":
                break  # as a program that dies here
        if client.url.startswith("redis"):
            _let_idle_pass(client.url)
        again = [one.id for one in client.events(timeout=1)]
        assert sorted(again) == ["r2-3", "r3-3", "r4-3"]
        assert list(client.events(timeout=0.2)) == []
    assert (event_.name, event_.final, event_.address) == ("sent", True, "r2@example.com")


def _let_idle_pass(url: str) -> None:
    """As if a minute had passed since the dead consumer was given what it held."""
    import redis

    with redis.Redis.from_url(url) as admin:
        stream, group = "mailgate:events:shop", "shop.events"
        for row in admin.xpending_range(stream, group, "-", "+", 100):
            admin.xclaim(
                stream, group, row["consumer"], 0, [row["message_id"]], idle=61_000, justid=True
            )


async def test_coroutines_read_events(gateway) -> None:
    server = gateway()
    client = client_of(server)
    assert [one async for one in client.aevents(timeout=0.2)] == []
    server.tell(sent(0), sent(1))
    assert [one.id async for one in client.aevents(timeout=0.5)] == ["r0-3", "r1-3"]


async def test_a_coroutine_that_reads_events_can_be_cancelled(gateway) -> None:
    client = client_of(gateway())
    found: list[str] = []

    async def read() -> None:
        async for one in client.aevents():
            found.append(one.id)

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.3)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert found == []


def test_events_go_on_after_the_broker_was_away(valkey: Valkey) -> None:
    found: list[str] = []
    client = Client(valkey.url, producer="shop", timeout=1.0)

    def read() -> None:
        for one in client.events(timeout=8):
            found.append(one.id)
            if len(found) == 2:
                return

    reader = threading.Thread(target=read)
    reader.start()
    server = Gateway(valkey.url)
    server.tell(sent(0))
    until(lambda: len(found) == 1)
    server.close()
    valkey.stop()
    valkey.start()
    server = Gateway(valkey.url)
    server.tell(sent(1))
    reader.join(10)
    server.close()
    assert found == ["r0-3", "r1-3"]


def test_a_wait_goes_on_when_the_broker_restarts(valkey: Valkey) -> None:
    final = threading.Event()

    def answers(document: dict[str, Any]) -> list[dict[str, Any]]:
        states = ["sent"] if final.is_set() else ["sending"]
        return [state(document, "done", states=states, final=final.is_set())]

    server = Gateway(valkey.url, answers)
    found: list[Any] = []
    client = Client(valkey.url, producer="shop", timeout=1.0, mandatory=False)
    waiter = threading.Thread(
        target=lambda: found.append(client.wait_for(idempotency_key="k1", timeout=20))
    )
    waiter.start()
    until(lambda: bool(server.seen))
    server.close()
    valkey.stop()
    final.set()
    valkey.start()
    server = Gateway(valkey.url, answers)
    waiter.join(20)
    server.close()
    assert found[0]["command"]["recipients"][0]["state"] == "sent"


def test_who_may_not_listen_is_told_at_once(valkey: Valkey) -> None:
    begun = time.monotonic()
    with Client(valkey.url.replace("redis://", "redis://nobody:wrong@")) as client:
        with pytest.raises(NoAnswer, match="no events can be read"):
            client.ask("order-1", wait=30)
        with pytest.raises(NoAnswer):
            next(client.events())
    assert time.monotonic() - begun < 5


def test_nobody_answers_where_everything_is_captured() -> None:
    client = Client("redis://nowhere.invalid", producer="shop")
    with captured() as outbox:
        client.cancel("order-1")
        with pytest.raises(NoAnswer, match="captured"):
            client.ask("order-1")
    assert outbox[0]["cancel"] == {"id": "order-1"}
