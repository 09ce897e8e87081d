"""A Redis stream as a door, against a real server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from typing import Any

import pytest

from mailgate.intake.door import DoorClosed
from mailgate.intake.redis_stream import AT_ONCE, GROUP, StreamDoor
from tests.integration.intake.conftest import IDLE, taken
from tests.servers import Valkey

STREAM = "mailgate:inbox"


def door(valkey: Valkey, **options: Any) -> StreamDoor:
    return StreamDoor(valkey.broker_url, STREAM, idle=IDLE, **options)


def publish(valkey: Valkey, *bodies: str) -> None:
    with valkey.client() as client:
        for body in bodies:
            client.xadd(STREAM, {"message": body})


def length(valkey: Valkey) -> int:
    with valkey.client() as client:
        return int(client.xlen(STREAM))


async def test_an_entry_is_delivered_and_gone_once_it_is_done(valkey, opened) -> None:
    publish(valkey, '{"to": "ann@example.com"}')
    consumer = await opened(door(valkey))
    [one] = await consumer.receive(10, 1.0)
    assert one.body == b'{"to": "ann@example.com"}'
    assert one.source == "redis-stream"
    assert one.identity.startswith(f"{STREAM}:")
    assert (one.redelivered, one.refusal) == (False, None)
    assert length(valkey) == 1
    assert await consumer.done([one])
    assert length(valkey) == 0
    assert await consumer.receive(10, 0.0) == []


async def test_redis_cli_is_a_producer(valkey, opened, gather) -> None:
    consumer = await opened(door(valkey))
    body = '{"to": "ann@example.com", "template": "welcome", "data": {"name": "Ünn"}}'
    command = ["redis-cli", "-s", str(valkey.socket), "XADD", STREAM, "*", "message", body]
    subprocess.run(command, check=True, capture_output=True)
    [one] = await gather(consumer, 1)
    assert json.loads(one.body)["data"] == {"name": "Ünn"}


async def test_an_entry_without_the_field_is_refused_with_all_it_said(valkey, opened) -> None:
    with valkey.client() as client:
        client.xadd(STREAM, {"body": '{"to": 1}', b"\xff": b"\xfe"})
    consumer = await opened(door(valkey))
    [one] = await consumer.receive(10, 1.0)
    assert "no field named message" in one.refusal
    assert json.loads(one.body) == {"body": '{"to": 1}', "\\xff": "\\xfe"}
    await consumer.done([one])
    assert length(valkey) == 0


async def test_receive_takes_what_is_there_and_lingers_for_no_more(valkey, opened) -> None:
    publish(valkey, *map(str, range(7)))
    consumer = await opened(door(valkey))
    begun = time.monotonic()
    assert [d.body for d in await consumer.receive(5, 10)] == [b"0", b"1", b"2", b"3", b"4"]
    assert [d.body for d in await consumer.receive(5, 10)] == [b"5", b"6"]
    assert time.monotonic() - begun < 2
    assert await consumer.receive(5, 0.05) == []


async def test_what_is_published_before_the_group_exists_is_delivered(valkey, opened) -> None:
    publish(valkey, "early")
    consumer = await opened(door(valkey))
    assert [d.body for d in await consumer.receive(5, 1)] == [b"early"]


async def test_killed_before_done_is_delivered_again_with_the_same_identity(
    valkey, opened, gather, hold_and_kill
) -> None:
    publish(valkey, *map(str, range(20)))
    held = hold_and_kill(valkey.broker_url, "mailgate.inbox", 20)
    again = await gather(await opened(door(valkey)), 20)
    assert {(d.identity, d.body.decode()) for d in again} == {tuple(h) for h in held}
    assert all(d.redelivered for d in again)


async def test_what_the_living_hold_is_not_taken_over(valkey, opened) -> None:
    publish(valkey, "mine")
    holder, other = await opened(door(valkey)), await opened(door(valkey))
    mine = await holder.receive(10, 1)
    until = time.monotonic() + 3 * IDLE
    while time.monotonic() < until:
        assert await other.receive(10, 0.1) == []
    assert await holder.done(mine)
    assert length(valkey) == 0


async def test_released_entries_go_to_another_consumer(valkey, opened, gather) -> None:
    publish(valkey, "a", "b")
    first, second = await opened(door(valkey)), await opened(door(valkey))
    given = await gather(first, 2)
    await first.release(given)
    await first.close()
    again = await gather(second, 2)
    assert {d.identity for d in again} == {d.identity for d in given}


async def test_two_doors_share_without_duplicates(valkey, opened) -> None:
    publish(valkey, *map(str, range(400)))
    doors = [await opened(door(valkey)) for _ in range(2)]
    seen: list[str] = []

    async def consume(one: StreamDoor) -> None:
        while batch := await one.receive(30, 0.3):
            seen.extend(d.identity for d in batch)
            await one.done(batch)

    await asyncio.gather(*map(consume, doors))
    assert len(seen) == len(set(seen)) == 400
    assert length(valkey) == 0


async def test_after_a_flush_the_group_is_made_again(valkey, opened, gather) -> None:
    consumer = await opened(door(valkey))
    publish(valkey, "before")
    held = await gather(consumer, 1)
    waiting = asyncio.create_task(consumer.receive(10, 2.0))
    await asyncio.sleep(0.1)
    with valkey.client() as client:
        client.flushall()
    publish(valkey, "after")
    found = list(await waiting)
    found += await gather(consumer, 1 - len(found))
    assert [d.body for d in found] == [b"after"]
    assert await consumer.done([*held, *found])
    assert length(valkey) == 0


async def test_a_restart_of_the_server_is_survived(valkey, opened, gather) -> None:
    told: list[str] = []
    consumer = await opened(door(valkey, trouble=told.append))
    publish(valkey, "one")
    await gather(consumer, 1)
    valkey.kill()
    assert await consumer.receive(10, 0.3) == []
    valkey.start()  # remembers nothing: it has no persistence here
    publish(valkey, "two")
    assert [d.body for d in await gather(consumer, 1)] == [b"two"]
    assert "ConnectionError" in told[0]
    assert told[-1] == "Redis intake: consuming again"


async def test_done_on_a_lost_connection_is_harmless(valkey, opened, gather) -> None:
    consumer = await opened(door(valkey, trouble=lambda _: None))
    publish(valkey, "one")
    held = await gather(consumer, 1)
    valkey.kill()
    assert not await consumer.done(held)
    await consumer.release(held)
    valkey.start()


async def test_a_reply_that_was_lost_is_looked_for(valkey, opened, gather) -> None:
    consumer = await opened(door(valkey))
    waiting = asyncio.create_task(consumer.receive(10, 5.0))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    # Another connection of the same consumer is given an entry that nobody hands on.
    with valkey.client() as client:
        client.xadd(STREAM, {"message": "lost"})
        client.xreadgroup(GROUP, consumer.consumer, {STREAM: ">"})
    [one] = await gather(consumer, 1, within=IDLE / 2)
    assert (one.body, one.redelivered) == (b"lost", True)


async def test_entries_deleted_while_pending_are_forgotten(valkey, opened, hold_and_kill) -> None:
    publish(valkey, "a", "b")
    hold_and_kill(valkey.broker_url, "mailgate.inbox", 2)
    with valkey.client() as client:
        client.xtrim(STREAM, maxlen=0)
    await asyncio.sleep(IDLE * 1.2)
    consumer = await opened(door(valkey))
    assert await consumer.receive(10, 0.1) == []
    with valkey.client() as client:
        assert client.xpending(STREAM, GROUP)["pending"] == 0


async def test_an_idle_door_delivers_within_milliseconds(valkey, opened) -> None:
    consumer = await opened(door(valkey))
    await consumer.receive(1, 0.05)
    waits = []
    with valkey.client() as client:
        for _ in range(20):
            waiting = asyncio.create_task(consumer.receive(10, 5.0))
            await asyncio.sleep(0.02)
            begun = time.perf_counter()
            client.xadd(STREAM, {"message": "x"})
            await waiting
            waits.append(time.perf_counter() - begun)
    assert sorted(waits)[10] < 0.010


async def test_a_closed_door_says_so_and_leaves_no_consumer_behind(valkey, opened) -> None:
    consumer = await opened(door(valkey))
    await consumer.receive(1, 0.0)
    await consumer.close()
    with pytest.raises(DoorClosed):
        await consumer.receive(1, 0.0)
    with valkey.client() as client:
        assert client.xinfo_consumers(STREAM, GROUP) == []


async def test_the_next_url_serves_while_the_first_is_away(valkey, opened, gather) -> None:
    url = f"redis+socket:///nowhere/at.all;{valkey.broker_url}?virtual_host=0"
    consumer = await opened(StreamDoor(url, STREAM, idle=IDLE, trouble=lambda _: None))
    publish(valkey, "one")
    assert [d.body for d in await gather(consumer, 1)] == [b"one"]


async def test_a_key_of_another_type_is_trouble_and_no_crash(valkey, opened) -> None:
    told: list[str] = []
    with valkey.client() as client:
        client.lpush(STREAM, "x")
    consumer = await opened(door(valkey, trouble=told.append))
    assert await consumer.receive(1, 0.05) == []
    assert "WRONGTYPE" in told[0]


async def test_large_entries_come_a_few_at_a_time(valkey, opened) -> None:
    """Whatever came before: a hundred small ones foretell nothing."""
    small, large = ["{}"] * 100, ["x" * 300_000] * 20
    publish(valkey, *small, *large)
    consumer = await opened(door(valkey, most_bytes=2**20))
    sizes = await taken(consumer)
    assert [n for batch in sizes for n in batch] == [2] * 100 + [300_000] * 20
    assert max(map(sum, sizes)) < 2**20 + AT_ONCE * 300_000
    assert len(sizes) < 8
