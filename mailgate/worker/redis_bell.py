"""Rings over Redis, Valkey, or what Sentinels call their master.

Owns the connection and that one ring is in a lane's list, the newest, as on RabbitMQ
(``settings.queues``). kombu is not asked: nobody has to know of an exchange here, its
publishing is as much work as all else of a ring, and it would be 3 MiB in each intake process.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

from redis import Redis, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from mailgate.config.urls import for_redis_py, is_sentinel, sentinels
from mailgate.model.state import Lane
from mailgate.worker.ring import ORIGIN, parcel
from mailgate.worker.settings import queue_name

#: Seconds for the server to answer to a ring; then its connection is taken for dead.
_CONFIRM = 5.0

#: Seconds to try for a connection to one host.
_CONNECT = 1.0


class RedisBell:
    """A ``doorbell.Bell``; ``url`` may name several servers: the first that takes it has it."""

    def __init__(self, url: str) -> None:
        self._clients = _clients(url)
        self._connected = False

    @property
    def connected(self) -> bool:
        return self._connected

    def ring(self, lane: Lane) -> None:
        queue = queue_name(lane)
        said = parcel(lane, str(uuid.uuid4()), ORIGIN, str(uuid.uuid4()))
        for last in range(len(self._clients) - 1, -1, -1):
            client = self._clients[0]
            try:
                if client.lpush(queue, said) > 1:
                    client.ltrim(queue, 0, 0)
            except (RedisError, OSError):
                self._clients.append(self._clients.pop(0))
                if not last:
                    raise
            else:
                self._connected = True
                return

    def drop(self) -> None:
        self._connected = False
        for client in self._clients:
            with contextlib.suppress(RedisError, OSError):
                client.connection_pool.disconnect()

    def hang_up(self) -> None:
        self.drop()


def _clients(url: str) -> list[Redis]:
    options: dict[str, Any] = {
        "socket_connect_timeout": _CONNECT,
        "socket_timeout": _CONFIRM,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if is_sentinel(url):
        nodes, name, rest = sentinels(url)
        found = Sentinel(nodes, sentinel_kwargs=dict(options), **options)  # type: ignore[no-untyped-call]
        return [found.master_for(name, **rest)]  # type: ignore[no-untyped-call]
    return [_at(for_redis_py(one), options) for one in url.split(";")]


def _at(url: str, options: dict[str, Any]) -> Redis:
    if url.startswith("unix:"):
        options = {key: value for key, value in options.items() if key != "socket_keepalive"}
    return Redis.from_url(url, **options)
