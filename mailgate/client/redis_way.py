"""The way to Redis or Valkey: XADD on the stream, which must be there already.

Owns one client a process (redis-py's pool is safe in threads and after a fork) and one
for each event loop. Never trims the stream and never makes it, unless told so: a stream
that is missing means that mailgate never ran there, as with RabbitMQ.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast
from weakref import WeakKeyDictionary

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from mailgate import redis_clients
from mailgate.client.ways import Away, Missing, Shut

#: Words with which a server says that it cannot now, or that another one can.
_PASSING = (
    *("READONLY", "OOM", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"),
    *("MISCONF", "BUSY", "NOREPLICAS", "UNBLOCKED"),
)


def clients(url: str, timeout: float, module: Any) -> Any:
    """A client of ``redis`` or ``redis.asyncio``; one URL, or several of Sentinels.

    It never tries anything twice by itself: we do, with the same key.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout,
        "protocol": 2,
        "retry": module.retry.Retry(_no_backoff(), 0),
    }
    return redis_clients.client(url, module, options)


def _no_backoff() -> Any:
    from redis.backoff import NoBackoff

    return NoBackoff()


class RedisWay:
    """Publishes on one server. ``replicas``: how many must have it too (WAIT)."""

    def __init__(
        self, url: str, stream: str, *, timeout: float, mandatory: bool, replicas: int
    ) -> None:
        self._url = url
        self._stream = stream
        self._timeout = timeout
        self._mandatory = mandatory
        self._replicas = replicas
        self._client: redis.Redis = clients(url, timeout, redis)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    def put(self, body: bytes, key: str) -> str:
        try:
            with self._client.pipeline(transaction=False) as pipe:
                return self._said(self._commands(pipe, body).execute())
        except (RedisError, OSError) as error:
            raise explained(error) from error

    async def aput(self, body: bytes, key: str) -> str:
        try:
            async with self._here().pipeline(transaction=False) as pipe:
                return self._said(await self._commands(pipe, body).execute())
        except (RedisError, OSError) as error:
            raise explained(error) from error

    def close(self) -> None:
        for one in redis_clients.everyone(self._client):
            one.close()

    async def aclose(self) -> None:
        self.close()
        mine = self._loops.pop(asyncio.get_running_loop(), None)
        for one in redis_clients.everyone(mine) if mine is not None else ():
            await one.aclose()

    def _here(self) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            import redis.asyncio

            self._loops[loop] = clients(self._url, self._timeout, redis.asyncio)
        return self._loops[loop]

    def _commands(self, pipe: Any, body: bytes) -> Any:
        pipe.xadd(self._stream, {"message": body}, nomkstream=self._mandatory)
        if self._replicas:
            pipe.execute_command("WAIT", self._replicas, int(self._timeout * 500))
        return pipe

    def _said(self, replies: list[Any]) -> str:
        entry = replies[0]
        if entry is None:
            raise Missing(f"there is no stream {self._stream}")
        if self._replicas and cast(int, replies[1]) < self._replicas:
            raise Away(f"{replies[1]} of {self._replicas} replicas have it")
        return f"{self._stream} {entry.decode() if isinstance(entry, bytes) else entry}"


def explained(error: Exception) -> Exception:
    """What an exception of redis-py means for another try."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return Shut(str(error))
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Shut(f"its certificate is not to be trusted: {error}")
    if isinstance(error, ResponseError) and not str(error).startswith(_PASSING):
        # redis-py takes the word off some replies, and gives them a class of their own.
        passing = ("OutOfMemory", "ReadOnly", "Loading", "ClusterDown", "MasterDown", "TryAgain")
        if not type(error).__name__.startswith(passing):
            return Shut(str(error))
    return Away(str(error) or type(error).__name__)
