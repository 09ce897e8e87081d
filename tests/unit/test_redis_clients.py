"""Where rings, doors, limits and producers go to: what a URL says, spelled for redis-py."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from mailgate.client.redis_way import clients as way
from mailgate.intake.redis import clients as doors
from mailgate.limits.redis import clients
from mailgate.worker.redis_bell import clients as rung

URLS = [
    ("redis://:p%40ss@127.0.0.1:1/3", {"host": "127.0.0.1", "port": 1, "db": 3}),
    ("redis+socket:///run/valkey.sock?virtual_host=3", {"path": "/run/valkey.sock", "db": 3}),
    (
        "sentinel://me%40here:p%40ss@127.0.0.1:1/3;sentinel://127.0.0.1:2?master_name=mail",
        {"db": 3, "username": "me@here", "password": "p@ss"},
    ),
    ("rediss://127.0.0.1:1/3?ssl_cert_reqs=CERT_NONE", {"db": 3, "ssl_cert_reqs": "none"}),
    (
        "sentinel://127.0.0.1:1/3?master_name=mail&ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/ca",
        {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca"},
    ),
]


def bell(url: str) -> list[Any]:
    return rung(url, connect=1.0, patience=2.0)


def producer(url: str) -> list[Any]:
    return [way(url, 2.0, redis)]


@pytest.mark.parametrize(
    "made", [bell, clients, doors, producer], ids=["bell", "limiter", "door", "producer"]
)
@pytest.mark.parametrize(("url", "wanted"), URLS)
def test_a_url_is_read_alike(made: Any, url: str, wanted: dict[str, Any]) -> None:
    [client] = made(url)
    found = client.connection_pool.connection_kwargs
    assert {key: found.get(key) for key in wanted} == wanted
    if "p%40ss" in url:
        assert found["password"] == "p@ss"
    if "master_name" in url:
        assert client.connection_pool.service_name == "mail"
    if "ssl_" in url:
        # As a rule it is made when it is first used: the options fit together.
        assert "SSL" in client.connection_pool.connection_class.__name__
        assert client.connection_pool.make_connection() is not None


def test_each_of_several_servers_has_a_client_and_none_is_waited_for_without_an_end() -> None:
    found = bell("redis://one.example;rediss://two.example")
    assert [c.connection_pool.connection_kwargs["host"] for c in found] == [
        "one.example",
        "two.example",
    ]
    for client in found:
        assert client.connection_pool.connection_kwargs["socket_timeout"] == 2.0
    assert found[1].connection_pool.connection_class.__name__ == "SSLConnection"
