"""A network that loses packets and closes nothing: everyone notices, and goes on elsewhere.

The times are short here; those of production are in docs/operators.md, and the faults
``lost-*`` hold whole systems to them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import kombu
import pytest

from bench.faults.proxy import Proxy, Way
from mailgate.client import Client, Message
from mailgate.client import amqp_way as client_amqp
from mailgate.client import events as client_events
from mailgate.config.shape import Config
from mailgate.events.outlet import OutletAway
from mailgate.events.publisher import outlet
from mailgate.intake import amqp_link, redis
from mailgate.intake.doors import open_doors
from mailgate.journal import patience
from mailgate.journal.database import Connection, Database, JournalAway
from mailgate.model.state import Lane
from mailgate.worker import amqp_bell, redis_bell
from mailgate.worker import broker as brokers
from mailgate.worker.doorbell import Doorbell
from tests.integration.events.test_outlets import post
from tests.integration.worker.test_doorbell import waiting

QUEUE = "mailgate.inbox"
WAYS: tuple[Way, ...] = ("both", "up", "down")
MESSAGE = Message(to="ann@example.com", template="welcome")


@pytest.fixture
def through() -> Iterator[Callable[[str], tuple[str, Proxy]]]:
    """``through(url)`` gives the URL by a proxy, and the proxy."""
    made: list[Proxy] = []

    def make(url: str) -> tuple[str, Proxy]:
        port = urlsplit(url).port
        assert port is not None
        made.append(Proxy(port))
        return url.replace(f":{port}", f":{made[-1].port}"), made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=["valkey", "rabbitmq"])
def broker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a broker, and short times for all who speak to it."""
    monkeypatch.setattr(amqp_link, "HEARTBEAT", 1)
    monkeypatch.setattr(redis, "PATIENCE", 0.5)
    monkeypatch.setattr(client_events, "HEARTBEAT", 1)
    monkeypatch.setattr(client_events, "FAREWELL", 0.3)
    monkeypatch.setattr(client_amqp, "FAREWELL", 0.3)
    monkeypatch.setattr(amqp_bell, "_CONFIRM", 0.5)
    monkeypatch.setattr(redis_bell, "_CONFIRM", 0.5)
    return str(request.getfixturevalue(request.param).url)


# --- the journal ------------------------------------------------------------------------


def insert(n: int) -> Callable[[Connection], object]:
    return lambda c: c.exec_driver_sql(f"INSERT INTO t VALUES ({n}, 0)")


@pytest.mark.parametrize("way", WAYS)
def test_postgresql_is_not_waited_for_without_end(way: Way, postgres_url: str, through) -> None:
    url, proxy = through(postgres_url)
    database = Database(url, patience=0.5)
    database.run_now(lambda c: c.exec_driver_sql("CREATE TABLE t (n int, m int)"))
    assert proxy.forget(way) == 1
    begun = time.monotonic()
    with pytest.raises(JournalAway):
        database.run_now(insert(1))
    # The statement, and the ROLLBACK on what is left of the connection.
    assert time.monotonic() - begun < 2
    database.run_now(insert(2))
    # Nobody was there to say COMMIT for the first.
    assert database.read_now(lambda c: c.exec_driver_sql("SELECT n FROM t").scalars().all()) == [2]
    [line] = proxy.lost()
    assert line.left_at is not None
    database.close()


def test_a_new_connection_is_not_waited_for_either(postgres_url: str, through) -> None:
    url, proxy = through(postgres_url)
    proxy.lose("down")
    database = Database(url, patience=0.5)
    with pytest.raises(JournalAway):
        database.run_now(lambda c: c.exec_driver_sql("SELECT 1"))
    database.close()


def test_what_a_vanished_process_has_locked_is_free_again(
    postgres_url: str, through, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is not told, and the kernels would look after it in hours."""
    monkeypatch.setattr(patience, "_IDLE", 1)
    url, proxy = through(postgres_url)
    here, there = Database(postgres_url), Database(url, patience=0.5)
    here.run_now(lambda c: c.exec_driver_sql("CREATE TABLE t (n int, m int)"))
    here.run_now(insert(1))
    update = "UPDATE t SET m = m + 1"

    def vanish(c: Connection) -> None:
        c.exec_driver_sql(update)
        proxy.forget()

    with pytest.raises(JournalAway):
        there.run_now(vanish)
    begun = time.monotonic()
    here.run_now(lambda c: c.exec_driver_sql(update))
    assert time.monotonic() - begun < 3
    assert here.read_now(lambda c: c.exec_driver_sql("SELECT m FROM t").scalar()) == 1
    here.close()
    there.close()


def test_a_slow_statement_ends_on_the_server_before_we_give_it_up(postgres_url: str) -> None:
    database = Database(postgres_url, patience=1.0)
    with pytest.raises(JournalAway, match="statement timeout"):
        database.run_now(lambda c: c.exec_driver_sql("SELECT pg_sleep(5)"))
    database.close()


# --- the brokers --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["both", "up"])
async def test_intake_consumes_again(way: Way, broker: str, through) -> None:
    url, proxy = through(broker)
    doors = open_doors(url, QUEUE)
    for door in doors:
        await door.open()
    await asyncio.gather(*(door.receive(10, 0.2) for door in doors))
    assert proxy.forget(way) > 0
    with Client(broker) as client:
        await asyncio.to_thread(client.publish, MESSAGE)
    found: list[Any] = []
    async with asyncio.timeout(8):
        while not found:
            for lot in await asyncio.gather(*(door.receive(10, 0.2) for door in doors)):
                found += lot
    assert len(found) == 1
    await asyncio.gather(*(door.close() for door in doors))


async def test_events_go_out_again(broker: str, through) -> None:
    url, proxy = through(broker)
    out = outlet(Config.model_validate({"intake": {"url": url}}))
    await out.send([post(1)])
    proxy.forget()
    async with asyncio.timeout(8):
        with pytest.raises(OutletAway):
            await out.send([post(2)])
        await out.send([post(2)])
    await out.close()


def test_a_ring_gets_through_again(broker: str, through) -> None:
    """Also the looks of workers ring: a bell that is stuck would be mail that is."""
    url, proxy = through(broker)
    with Doorbell(Config.model_validate({"broker": {"url": url}})) as bell:
        bell.ring(Lane.HIGH)
        until(lambda: waiting(broker, Lane.HIGH) == 1)
        proxy.forget()
        until(lambda: rung(bell, broker))


def rung(bell: Doorbell, broker: str) -> bool:
    bell.ring(Lane.BULK)
    time.sleep(0.1)
    return waiting(broker, Lane.BULK) == 1


def test_a_worker_does_not_wait_for_a_farewell(rabbitmq, through, monkeypatch) -> None:
    """Celery closes politely what was lost, and py-amqp waits for the reply."""
    monkeypatch.setattr(brokers, "_AMQP", {"read_timeout": 1, "write_timeout": 1})
    url, proxy = through(rabbitmq.url)
    settings = brokers.broker_settings(url, 60)
    connection: Any = kombu.Connection(url, transport_options=settings["broker_transport_options"])
    assert connection.default_channel is not None
    proxy.forget()
    begun = time.monotonic()
    connection.close()
    # The channel's, and the connection's.
    assert time.monotonic() - begun < 4


def test_a_producer_publishes_on_and_can_close(broker: str, through) -> None:
    asyncio.run(make_inbox(broker))
    url, proxy = through(broker)
    begun = time.monotonic()
    with Client(url, timeout=0.5) as client:
        client.publish(MESSAGE)
        proxy.forget()
        client.publish(MESSAGE)
        proxy.forget()
    assert time.monotonic() - begun < 5


async def make_inbox(url: str) -> None:
    for door in open_doors(url, QUEUE):
        await door.open()
        await door.close()


def test_who_listens_for_events_hears_them_again(broker: str, through) -> None:
    asyncio.run(tell(broker, 0))
    url, proxy = through(broker)
    with Client(url, producer="shop", timeout=1.0) as client:
        heard = client.events(group="shop.books", timeout=10)
        threading.Timer(0.3, lambda: asyncio.run(tell(broker, 1))).start()
        assert number(heard, 1) == 1
        proxy.forget()
        asyncio.run(tell(broker, 2))
        begun = time.monotonic()
        assert number(heard, 2) == 2
        assert time.monotonic() - begun < 8
        heard.close()


def test_who_takes_long_over_an_event_is_not_taken_for_gone(
    rabbitmq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_events, "HEARTBEAT", 1)
    asyncio.run(tell(rabbitmq.url, 0))
    with Client(rabbitmq.url, producer="shop") as client:
        heard = client.events(group="shop.books", timeout=1)
        threading.Timer(0.3, lambda: asyncio.run(tell(rabbitmq.url, 1, 2))).start()
        seen = []
        for event in heard:
            seen.append(event["n"])
            if event["n"] == 1:
                time.sleep(2.7)
    assert seen == [1, 2]


async def tell(url: str, *numbers: int) -> None:
    out = outlet(Config.model_validate({"intake": {"url": url}}))
    await out.send([post(n) for n in numbers])
    await out.close()


def number(heard: Iterator[Any], at_least: int) -> int:
    """The next number of that size: whatever was not acknowledged comes again."""
    return next(n for event in heard if (n := int(event["n"])) >= at_least)


def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        time.sleep(0.05)
