"""Journals of both kinds beside brokers of both kinds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.journal.conftest import (  # noqa: F401 (fixtures)
    journal,
    journal_url,
    migrated_clones,
    migrated_file,
    migrated_postgres_url,
    processes,
    rigs_of,
    sqlite_url,
)
from tests.integration.events.listeners import Listener, listen


@pytest.fixture(params=["valkey", "rabbitmq"])
def listener(request: pytest.FixtureRequest) -> Callable[..., Listener]:
    """``listener("shop")`` hears what that producer is told."""
    server = request.getfixturevalue(request.param)

    url = server.broker_url if request.param == "valkey" else server.url
    return lambda *producers: listen(url, *producers)
