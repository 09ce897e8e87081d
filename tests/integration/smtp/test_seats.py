"""Connections that several pools share, as several processes do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mailgate.model.outcome import Kind, Scope
from mailgate.smtp import seats
from mailgate.smtp.pool import Pool
from tests.integration.smtp.conftest import envelope, settings
from tests.integration.smtp.scripted import Marks, ScriptedRelay


class Counted:
    """Seats for all pools of a test."""

    def __init__(self, most: int) -> None:
        self.most, self.taken, self.top, self.asked = most, 0, 0, 0

    async def take(self) -> bool:
        self.asked += 1
        await asyncio.sleep(0.002)
        if self.taken >= self.most:
            return False
        self.taken += 1
        self.top = max(self.top, self.taken)
        return True

    async def give_back(self) -> None:
        await asyncio.sleep(0.002)
        self.taken -= 1


@asynccontextmanager
async def pools(port: int, counted: Counted, count: int = 2, **changes: int) -> AsyncIterator[list]:
    made = [
        Pool({"main": settings(port, **changes)}, {}, seats={"main": counted}) for _ in range(count)
    ]
    try:
        yield made
    finally:
        await asyncio.gather(*(pool.close(1.0) for pool in made))
    assert counted.taken == 0


async def test_two_processes_never_have_more_and_all_mail_goes() -> None:
    counted = Counted(3)
    async with ScriptedRelay() as relay, pools(relay.port, counted) as both:
        sends = [
            pool.deliver("main", envelope(f"u{n}@example.net"), Marks())
            for n in range(40)
            for pool in both
        ]
        outcomes = await asyncio.gather(*sends)
        assert {o.kind for o in outcomes} == {Kind.SENT}
        assert counted.top == 3
        # Kept connections serve many: seats are asked for now and then, not for each mail.
        assert counted.asked < 40


async def test_an_idle_connection_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailgate.smtp.desk.IDLE", 0.1)
    counted = Counted(1)
    async with ScriptedRelay() as relay, pools(relay.port, counted) as (one, two):
        assert (await one.deliver("main", envelope(), Marks())).kind is Kind.SENT
        assert (await two.deliver("main", envelope(), Marks())).kind is Kind.SENT
        assert counted.top == 1


async def test_who_finds_no_seat_is_given_back_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailgate.smtp.desk.PATIENCE", 0.6)
    counted = Counted(0)
    async with ScriptedRelay() as relay, pools(relay.port, counted, 1) as (pool,):
        begun = time.monotonic()
        outcomes = await asyncio.gather(
            *(pool.deliver("main", envelope(), Marks()) for _ in range(10))
        )
        assert {(o.kind, o.error_class, o.scope) for o in outcomes} == {
            (Kind.UNTOUCHED, "limit", Scope.MESSAGE)
        }
        assert not relay.heard
        # One asks for all of them.
        assert counted.asked <= 2 + (time.monotonic() - begun) / (seats.AGAIN / 2)


async def test_cancelled_while_it_asks_it_takes_no_seat() -> None:
    counted = Counted(5)
    async with ScriptedRelay() as relay, pools(relay.port, counted, 1) as (pool,):
        for wait in (0.0, 0.001, 0.003, 0.01):
            task = asyncio.create_task(pool.deliver("main", envelope(), Marks()))
            await asyncio.sleep(wait)
            task.cancel()
            await asyncio.wait([task])
        assert (await pool.deliver("main", envelope(), Marks())).kind is Kind.SENT
        await asyncio.sleep(0.02)
        assert counted.taken == pool.stats()["main"].open


async def test_a_set_up_that_fails_gives_its_seat_back() -> None:
    counted = Counted(5)
    async with ScriptedRelay() as relay:
        port = relay.port
    async with pools(port, counted, 1) as (pool,):
        outcome = await pool.deliver("main", envelope(), Marks())
        assert outcome.kind is not Kind.SENT
        await asyncio.sleep(0.02)
        assert counted.taken == 0
