"""What the intake process does beside taking in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mailgate import memory
from mailgate.intake import service
from tests.integration.cli.conftest import Shell
from tests.unit.cycles import collected_only_when_told, old_cycle


def test_intake_lets_go_of_what_nobody_can_reach(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[bool] = []

    async def serve(*_: Any, **__: Any) -> None:
        lost = old_cycle()
        async with asyncio.timeout(10):
            while lost() is not None:
                await asyncio.sleep(0.02)
        gone.append(True)

    monkeypatch.setattr(memory, "EVERY", 0.05)
    monkeypatch.setattr(service, "serve", serve)
    with collected_only_when_told():
        said = shell("intake")
    assert (said.code, gone) == (0, [True]), said.err
