"""A Redis list as a door, against a real server."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import Any

from mailgate.intake.redis_list import ListDoor
from tests.integration.intake.conftest import IDLE, taken
from tests.servers import Valkey

KEY = "mailgate:inbox:list"


def door(valkey: Valkey, **options: Any) -> ListDoor:
    return ListDoor(valkey.broker_url, KEY, idle=IDLE, **options)


def publish(valkey: Valkey, *bodies: str) -> None:
    with valkey.client() as client:
        for body in bodies:
            client.lpush(KEY, body)


def keys(valkey: Valkey) -> set[str]:
    with valkey.client() as client:
        return {k.decode() for k in client.scan_iter("*")}


async def test_an_element_is_delivered_and_gone_once_it_is_done(valkey, opened) -> None:
    consumer = await opened(door(valkey))
    command = ["redis-cli", "-s", str(valkey.socket), "LPUSH", KEY, '{"to": "ann@example.com"}']
    subprocess.run(command, check=True, capture_output=True)
    [one] = await consumer.receive(10, 1.0)
    assert (one.body, one.source) == (b'{"to": "ann@example.com"}', "redis-list")
    assert (one.redelivered, one.refusal) == (False, None)
    assert await consumer.done([one])
    await consumer.close()
    assert keys(valkey) == set()


async def test_lpush_is_first_in_first_out_also_when_it_wakes_a_waiting_door(
    valkey, opened, gather
) -> None:
    consumer = await opened(door(valkey))
    waiting = asyncio.create_task(consumer.receive(100, 5.0))
    await asyncio.sleep(0.1)
    publish(valkey, *map(str, range(50)))
    found = list(await waiting)
    found += await gather(consumer, 50 - len(found))
    assert [d.body for d in found] == [str(i).encode() for i in range(50)]
    assert len({d.identity for d in found}) == 50


async def test_killed_before_done_is_delivered_again_with_the_same_identity(
    valkey, opened, gather, hold_and_kill
) -> None:
    publish(valkey, *map(str, range(20)))
    held = hold_and_kill(valkey.broker_url, "mailgate.inbox", 20)
    again = await gather(await opened(door(valkey)), 20)
    assert {(d.identity, d.body.decode()) for d in again} == {tuple(h) for h in held}
    assert all(d.redelivered for d in again)


async def test_killed_between_the_move_and_the_stamp_loses_nothing(valkey, opened, gather) -> None:
    with valkey.client() as client:
        client.sadd(f"{KEY}:consumers", "dead")
        client.lpush(f"{KEY}:popped:dead", "moved")
    [one] = await gather(await opened(door(valkey)), 1)
    assert (one.body, one.redelivered) == (b"moved", True)


async def test_what_the_living_hold_is_not_taken_over(valkey, opened) -> None:
    publish(valkey, "mine")
    holder, other = await opened(door(valkey)), await opened(door(valkey))
    mine = await holder.receive(10, 1)
    until = time.monotonic() + 3 * IDLE
    while time.monotonic() < until:
        assert await other.receive(10, 0.1) == []
    assert await holder.done(mine)


async def test_released_elements_keep_their_identity(valkey, opened, gather) -> None:
    publish(valkey, "a", "b")
    first, second = await opened(door(valkey)), await opened(door(valkey))
    given = await gather(first, 2)
    await first.release(given)
    again = await gather(second, 2)
    assert {d.identity for d in again} == {d.identity for d in given}
    assert await second.done(again)
    await first.close()
    await second.close()
    assert not any("taken" in key for key in keys(valkey))


async def test_what_a_closing_consumer_holds_is_adopted_at_once(valkey, opened, gather) -> None:
    publish(valkey, "a")
    first = await opened(door(valkey))
    [given] = await gather(first, 1)
    await first.close()
    [again] = await gather(await opened(door(valkey)), 1, within=IDLE / 2)
    assert again.identity == given.identity


async def test_two_doors_share_without_duplicates(valkey, opened) -> None:
    publish(valkey, *map(str, range(400)))
    doors = [await opened(door(valkey)) for _ in range(2)]
    seen: list[bytes] = []

    async def consume(one: ListDoor) -> None:
        while batch := await one.receive(30, 0.3):
            seen.extend(d.body for d in batch)
            await one.done(batch)

    await asyncio.gather(*map(consume, doors))
    assert sorted(map(int, seen)) == list(range(400))


async def test_a_cancelled_wait_loses_nothing(valkey, opened, gather) -> None:
    consumer = await opened(door(valkey))
    found = []
    for n in range(30):
        waiting = asyncio.create_task(consumer.receive(10, 5.0))
        await asyncio.sleep(0.001 * (n % 4))
        publish(valkey, str(n))
        waiting.cancel()
        for result in await asyncio.gather(waiting, return_exceptions=True):
            found += result if isinstance(result, list) else []
    found += await gather(consumer, 30 - len(found))
    assert sorted(int(d.body) for d in found) == list(range(30))


async def test_a_flush_and_a_restart_are_survived(valkey, opened, gather) -> None:
    told: list[str] = []
    consumer = await opened(door(valkey, trouble=told.append))
    publish(valkey, "one")
    held = await gather(consumer, 1)
    with valkey.client() as client:
        client.flushall()
    assert await consumer.done(held)
    publish(valkey, "two")
    await gather(consumer, 1)
    valkey.kill()
    assert await consumer.receive(10, 0.3) == []
    valkey.start()
    publish(valkey, "three")
    assert [d.body for d in await gather(consumer, 1)] == [b"three"]
    assert told[-1] == "Redis intake: consuming again"


async def test_an_idle_door_delivers_within_milliseconds(valkey, opened) -> None:
    consumer = await opened(door(valkey))
    await consumer.receive(1, 0.05)
    waits = []
    with valkey.client() as client:
        for _ in range(20):
            waiting = asyncio.create_task(consumer.receive(10, 5.0))
            await asyncio.sleep(0.02)
            begun = time.perf_counter()
            client.lpush(KEY, "x")
            await waiting
            waits.append(time.perf_counter() - begun)
    assert sorted(waits)[10] < 0.010


async def test_large_elements_come_a_few_at_a_time(valkey, opened) -> None:
    """Whatever came before: a hundred small ones foretell nothing."""
    small, large = ["{}"] * 100, ["x" * 300_000] * 20
    publish(valkey, *small, *large)
    consumer = await opened(door(valkey, most_bytes=2**20))
    sizes = await taken(consumer)
    assert [n for batch in sizes for n in batch] == [2] * 100 + [300_000] * 20
    assert max(map(sum, sizes)) < 2**20 + 300_000
    assert len(sizes) < 8
