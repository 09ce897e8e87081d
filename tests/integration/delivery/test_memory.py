"""A process that delivers lets go of what an outage has left behind."""

from __future__ import annotations

import asyncio

import pytest

from mailgate import memory
from tests.integration.delivery.house import House
from tests.unit.cycles import collected_only_when_told, old_cycle


async def test_a_gateway_lets_go_of_what_nobody_can_reach(
    small_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "EVERY", 0.05)
    with collected_only_when_told():
        await small_house.open({})
        lost = old_cycle()
        async with asyncio.timeout(10):
            while lost() is not None:
                await asyncio.sleep(0.02)
