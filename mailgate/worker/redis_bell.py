"""Rings over Redis, Valkey, or what Sentinels call their master.

Owns the connection and that one ring is in a lane's list, the newest, as on RabbitMQ
(``settings.queues``). kombu is not asked: nobody has to know of an exchange here, its
publishing is as much work as all else of a ring, and it would be 3 MiB in each intake process.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import redis
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from mailgate import redis_clients
from mailgate.model.state import Lane
from mailgate.worker.ring import ORIGIN, parcel
from mailgate.worker.settings import queue_name

#: Seconds for the server to answer to a ring; then its connection is taken for dead.
_CONFIRM = 5.0

#: Seconds to try for a connection to one address, as Celery does.
_CONNECT = 4.0


class RedisBell:
    """A ``doorbell.Bell``.

    ``url`` may name several servers. The workers listen to the first that they can connect
    to, and so rings begin there again with each new connection.
    """

    def __init__(self, url: str) -> None:
        self._clients = clients(url, connect=_CONNECT, patience=_CONFIRM)
        self._connected: Redis | None = None

    @property
    def connected(self) -> bool:
        return self._connected is not None

    def ring(self, lane: Lane) -> None:
        if self._connected is not None:
            _push(self._connected, lane)
            return
        for client in self._clients:
            try:
                _push(client, lane)
            except (RedisConnectionError, RedisTimeoutError, OSError):
                # One that answers, whatever it says, is what the workers listen to.
                if client is self._clients[-1]:
                    raise
            else:
                self._connected = client
                return

    def drop(self) -> None:
        self._connected = None
        for client in self._clients:
            with contextlib.suppress(Exception):
                hang_up(client)

    def hang_up(self) -> None:
        self.drop()


def _push(client: Redis, lane: Lane) -> None:
    queue = queue_name(lane)
    said = parcel(lane, str(uuid.uuid4()), ORIGIN, str(uuid.uuid4()))
    if client.lpush(queue, said) > 1:
        client.ltrim(queue, 0, 0)


def clients(url: str, *, connect: float, patience: float) -> list[Redis]:
    """``redis_clients.clients`` that try nothing twice.

    ``connect`` is how long a connection may take, ``patience`` each reply (seconds).
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": connect,
        "socket_timeout": patience,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    return redis_clients.clients(url, redis, options)


def hang_up(client: Redis) -> None:
    """Close its connections, also those to Sentinels."""
    for one in redis_clients.everyone(client):
        one.connection_pool.disconnect()
