"""Gateways in this process, over a real journal and real SMTP servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.journal.conftest import (  # noqa: F401 - fixtures by name
    journal_url,
    migrated_clones,
    migrated_file,
    migrated_postgres_url,
    sqlite_url,
)
from tests.integration.delivery.house import House


@pytest.fixture
async def house(journal_url: str, tmp_path: Path) -> AsyncIterator[House]:  # noqa: F811
    """A journal, over which ``house.open()`` sets up one worker process after another."""
    house = House(journal_url, tmp_path)
    yield house
    await house.close()


@pytest.fixture
async def small_house(sqlite_url: str, tmp_path: Path) -> AsyncIterator[House]:  # noqa: F811
    """The same on SQLite alone, for what has nothing to do with the database."""
    house = House(sqlite_url, tmp_path)
    yield house
    await house.close()
