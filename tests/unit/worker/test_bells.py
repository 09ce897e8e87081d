"""Where a ring over Redis goes to: what the broker's URL says, spelled for redis-py."""

from __future__ import annotations

from typing import Any

import pytest

from mailgate.limits.redis import clients
from mailgate.worker.redis_bell import _CONFIRM, _clients

URLS = [
    ("redis://:p%40ss@127.0.0.1:1/3", {"host": "127.0.0.1", "port": 1, "db": 3}),
    ("redis+socket:///run/valkey.sock?virtual_host=3", {"path": "/run/valkey.sock", "db": 3}),
    (
        "sentinel://me%40here:p%40ss@127.0.0.1:1/3?master_name=mail",
        {"db": 3, "username": "me@here", "password": "p@ss"},
    ),
]


@pytest.mark.parametrize("made", [_clients, clients], ids=["bell", "limiter"])
@pytest.mark.parametrize(("url", "wanted"), URLS)
def test_a_url_is_read_alike(made: Any, url: str, wanted: dict[str, Any]) -> None:
    [client] = made(url)
    found = client.connection_pool.connection_kwargs
    assert {key: found.get(key) for key in wanted} == wanted
    if "p%40ss" in url:
        assert found["password"] == "p@ss"


def test_each_of_several_servers_has_a_client_and_none_is_waited_for_without_an_end() -> None:
    found = _clients("redis://one.example;rediss://two.example")
    assert [c.connection_pool.connection_kwargs["host"] for c in found] == [
        "one.example",
        "two.example",
    ]
    for client in found:
        assert client.connection_pool.connection_kwargs["socket_timeout"] == _CONFIRM
    assert found[1].connection_pool.connection_class.__name__ == "SSLConnection"
