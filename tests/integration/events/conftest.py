"""Journals of both kinds beside brokers of both kinds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.journal.conftest import (  # noqa: F401 (fixtures)
    journal,
    journal_url,
    migrated_file,
    migrated_postgres_url,
    migrated_template,
    processes,
    rigs_of,
    sqlite_url,
)
from tests.integration.events.listeners import Listener, RabbitListener, RedisListener


@pytest.fixture(params=["valkey", "rabbitmq"])
def listener(request: pytest.FixtureRequest) -> Callable[..., Listener]:
    """``listener("shop")`` hears what that producer is told."""
    server = request.getfixturevalue(request.param)

    def listen(*producers: str) -> Listener:
        if request.param == "valkey":
            return RedisListener(server)
        return RabbitListener(server, *producers)

    return listen
