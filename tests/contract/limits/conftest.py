from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mailgate.journal.tables import whole
from mailgate.limits.rules import Limiter
from tests.contract.limits.stores import opened

SHARED = ("valkey", "sqlite", "postgres")


def made(kind: str, request: pytest.FixtureRequest, directory: Path) -> str:
    """The URL of an empty store."""
    if kind == "memory":
        return ""
    if kind == "valkey":
        url: str = request.getfixturevalue("valkey").broker_url
        return url
    url = (
        f"sqlite:///{directory}/journal.db"
        if kind == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        if kind == "sqlite":
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        whole().create_all(connection)
        connection.commit()
    engine.dispose()
    return url


@pytest.fixture(params=("memory", *SHARED))
async def limiter(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Limiter]:
    async with opened(request.param, made(request.param, request, tmp_path)) as store:
        yield store


@pytest.fixture(params=SHARED)
def shared_store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Kind and URL of a store that several processes can open."""
    return request.param, made(request.param, request, tmp_path)
