"""The ways out to real brokers: everything arrives, in order, and trouble is told apart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import kombu
import pytest
import pytest_asyncio
import redis

from mailgate.config.shape import Config
from mailgate.events.document import Post
from mailgate.events.outlet import Outlet, OutletAway
from mailgate.events.publisher import outlet
from tests.integration.events.listeners import Listener, RabbitListener
from tests.servers import Valkey, Vhost


def post(n: int, producer: str | None = "shop", size: int = 0, key: str = "k") -> Post:
    body = json.dumps({"n": n, "pad": "ü" * size}, ensure_ascii=False).encode()
    return Post(n, f"id-{n}", "sent", producer, body, 1_700_000_000_000 + n, key)


@pytest_asyncio.fixture
async def outlet_to() -> AsyncIterator[Callable[..., Outlet]]:
    made: list[Outlet] = []

    def make(url: str, **events: object) -> Outlet:
        made.append(outlet(Config.model_validate({"intake": {"url": url}, "events": events})))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def test_a_batch_arrives_in_order(listener: Callable[..., Listener], outlet_to) -> None:
    ear = listener("shop", "other")
    out = outlet_to(ear.url)
    assert await out.send([post(n) for n in range(300)]) == frozenset()
    assert await out.send([post(300, "other"), post(301)]) == frozenset()
    assert [one["n"] for one in ear.wait("shop", 301)] == [*range(300), 301]
    assert [one["n"] for one in ear.wait("other", 1)] == [300]


@pytest.mark.parametrize("size", [2_000, 70_000, 400_000])
async def test_large_events_arrive_whole(
    listener: Callable[..., Listener], outlet_to, size: int
) -> None:
    """Larger than a frame of AMQP too."""
    ear = listener("shop")
    await outlet_to(ear.url).send([post(1, size=size), post(2)])
    first, second = ear.wait("shop", 2)
    assert len(first["pad"]) == size
    assert second["n"] == 2


async def test_what_no_producer_is_known_for_goes_to_the_operators(
    listener: Callable[..., Listener], outlet_to
) -> None:
    ear = listener("UNKNOWN")
    await outlet_to(ear.url).send([post(1, None)])
    assert [one["n"] for one in ear.wait("UNKNOWN", 1)] == [1]


async def test_amqp_properties_tell_what_it_is(rabbitmq: Vhost, outlet_to) -> None:
    ear = RabbitListener(rabbitmq.url, "shop")
    await outlet_to(ear.url).send([post(1), post(2, key=""), post(3, key="ü" * 200)])
    ear.wait("shop", 3)
    assert ear.keys == ["shop.sent"] * 3
    first, second, third = ear.properties
    assert first["message_id"] == "id-1"
    assert first["type"] == "sent"
    assert first["content_type"] == "application/json"
    assert first["delivery_mode"] == 2
    assert first["correlation_id"] == "k"
    assert first["app_id"] == "mailgate"
    assert first["timestamp"] == 1_700_000_000
    # A key that no short string can hold is left out.
    assert "correlation_id" not in second
    assert "correlation_id" not in third


async def test_the_exchange_is_there_before_the_first_event(rabbitmq: Vhost, outlet_to) -> None:
    """What producers bind their queues to, before they publish anything."""
    await outlet_to(rabbitmq.url).open()
    with kombu.Connection(rabbitmq.url) as connection:
        exchange = kombu.Exchange("mailgate.events", "topic", passive=True)
        exchange(connection.default_channel).declare()


async def test_an_exchange_that_nobody_listens_to_takes_everything(
    rabbitmq: Vhost, outlet_to
) -> None:
    assert await outlet_to(rabbitmq.url).send([post(1), post(2)]) == frozenset()


async def test_the_stream_is_capped(valkey: Valkey, outlet_to) -> None:
    out = outlet_to(valkey.broker_url, max_length=100)
    for at in range(0, 1000, 200):
        await out.send([post(n) for n in range(at, at + 200)])
    with redis.Redis.from_url(valkey.socket_url) as client:
        length = client.xlen("mailgate:events:shop")
        [(_, newest)] = client.xrevrange("mailgate:events:shop", count=1)
    assert 100 <= length < 300
    assert json.loads(newest[b"event"])["n"] == 999


async def test_a_key_of_another_type_refuses_one_producer_alone(valkey: Valkey, outlet_to) -> None:
    with redis.Redis.from_url(valkey.socket_url) as client:
        client.set("mailgate:events:shop", "mine")
        refused = await outlet_to(valkey.broker_url).send([post(1), post(2, "other"), post(3)])
        assert refused == {"shop"}
        assert client.xlen("mailgate:events:other") == 1


async def test_a_full_queue_refuses_one_producer_alone(rabbitmq: Vhost, outlet_to) -> None:
    # A quorum queue takes some more before it notices that it is full.
    full = {"x-queue-type": "classic", "x-max-length": 2, "x-overflow": "reject-publish"}
    RabbitListener(rabbitmq.url, "shop", **full)
    other = RabbitListener(rabbitmq.url, "other")
    out = outlet_to(rabbitmq.url)
    assert await out.send([post(1), post(2)]) == frozenset()
    assert await out.send([post(3), post(4, "other"), post(5)]) == {"shop"}
    assert await out.send([post(6, "other")]) == frozenset()
    assert [one["n"] for one in other.wait("other", 2)] == [4, 6]


async def test_a_full_redis_is_away_and_not_one_producers_fault(valkey: Valkey, outlet_to) -> None:
    out = outlet_to(valkey.broker_url)
    with redis.Redis.from_url(valkey.socket_url) as client:
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(OutletAway, match="maxmemory"):
                await out.send([post(1)])
        finally:
            client.config_set("maxmemory", "0")
    await out.send([post(1)])


async def test_a_redis_that_comes_back_is_used_again(valkey: Valkey, outlet_to) -> None:
    out = outlet_to(valkey.broker_url)
    await out.send([post(1)])
    valkey.kill()
    with pytest.raises(OutletAway):
        await out.send([post(2)])
    valkey.start()
    await out.send([post(2)])


async def test_a_connection_that_rabbitmq_closes_is_made_anew(rabbitmq: Vhost, outlet_to) -> None:
    ear = RabbitListener(rabbitmq.url, "shop")
    out = outlet_to(rabbitmq.url)
    await out.send([post(1)])
    while not rabbitmq.close_connections():  # it lists them late
        pass
    with pytest.raises(OutletAway):
        await out.send([post(2)])
    await out.send([post(2)])
    assert [one["n"] for one in ear.wait("shop", 2)] == [1, 2]


async def test_the_next_server_is_used_when_the_first_is_away(valkey: Valkey, outlet_to) -> None:
    out = outlet_to(f"redis://127.0.0.1:1/0;{valkey.url}")
    with pytest.raises(OutletAway):
        await out.send([post(1)])
    await out.send([post(1)])
