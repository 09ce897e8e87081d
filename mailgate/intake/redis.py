"""What the doors to Redis share: connections, failover, the heartbeat, closing.

Owns the rule that a command is never tried twice by itself.
Redis or Valkey 6.2 at least. Never knows a stream or a list: ``redis_stream`` and
``redis_list`` do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from mailgate import redis_clients
from mailgate.cancellation import heed
from mailgate.intake.door import BATCH_BYTES, Backoff, Delivery, DoorClosed, Trouble

#: Seconds after which what nobody holds any more is taken over.
IDLE = 15.0
#: Seconds to wait for a reply; blocking commands block for half of it at most.
PATIENCE = 10.0

_log = logging.getLogger(__name__)


def clients(url: str) -> list[Redis]:
    """Those of ``redis_clients.clients``, which connect when first used.

    Nothing is ever tried twice by the client itself: a script that ran may not run again.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": 5.0,
        "socket_timeout": PATIENCE,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    return redis_clients.clients(url, redis.asyncio, options)


class RedisDoor(ABC):
    """What both Redis doors share: reconnection, failover, the heartbeat, closing.

    ``url`` may name several servers: the next is tried when one is away. ``idle``
    is in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        idle: float = IDLE,
        most_bytes: int = BATCH_BYTES,
        trouble: Trouble | None = None,
    ) -> None:
        self.consumer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._clients = clients(url)
        self._idle = idle
        self._most_bytes = most_bytes
        self._trouble = trouble or _log.warning
        self._backoff = Backoff()
        self._away = False
        self._closed = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None
        self._prepared = False

    @property
    def client(self) -> Redis:
        return self._clients[0]

    @abstractmethod
    async def _prepare(self) -> None:
        """Once a connection: make what must be there."""

    @abstractmethod
    async def _receive(self, most: int, wait: float) -> list[Delivery]: ...

    @abstractmethod
    async def _beat(self) -> None:
        """Show that this consumer lives; several times in ``idle``."""

    @abstractmethod
    async def _leave(self) -> None:
        """Say goodbye, so that others need not wait for our silence."""

    async def open(self) -> None:
        await self._try(self._prepared_or_prepare)
        if self._beating is None:
            self._beating = asyncio.create_task(self._keep_beating())

    async def receive(self, most: int, wait: float) -> Sequence[Delivery]:
        if self._closed.is_set():
            raise DoorClosed
        try:
            await self._prepared_or_prepare()
            found = await self._receive(most, wait)
        except (RedisError, OSError) as error:
            if self._closed.is_set():
                raise DoorClosed from None
            self._lost(error)
            pause = min(self._backoff.wait(), max(wait, 0.05))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closed.wait()
            return []
        except asyncio.CancelledError:
            # The reply may be on its way; what it brings is ours and must be looked for.
            self._prepared = False
            raise
        self._well()
        return found

    async def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait((self._beating,), timeout=PATIENCE)
        if not self._away:
            await self._try(self._leave)
        for client in self._clients:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()

    async def _prepared_or_prepare(self) -> None:
        if not self._prepared:
            await self._prepare()
            self._prepared = True

    async def _try(self, act: Callable[[], Awaitable[object]]) -> bool:
        try:
            await act()
        except (RedisError, OSError) as error:
            self._lost(error)
            return False
        return True

    async def _keep_beating(self) -> None:
        while True:
            heed()
            await asyncio.sleep(self._idle / 4)
            # Only receiving tries other servers; a heartbeat that fails is silent.
            with contextlib.suppress(RedisError, OSError):
                await self._beat()

    def _lost(self, error: Exception) -> None:
        if not self._away:
            self._trouble(f"Redis intake: {type(error).__name__}: {error}")
        self._away = True
        self._prepared = False
        # A ResponseError is this server's answer; anything else may be its absence.
        if not isinstance(error, ResponseError) or "READONLY" in str(error):
            self._clients.append(self._clients.pop(0))

    def _well(self) -> None:
        if self._away:
            self._trouble("Redis intake: consuming again")
        self._away = False
        self._backoff.reset()
