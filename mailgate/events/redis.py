"""A Redis stream for each producer, capped.

Owns the streams' names and the cap. Never reads one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from redis.exceptions import RedisError, ResponseError

from mailgate.contract.event import STREAM, UNKNOWN
from mailgate.events.document import Post
from mailgate.events.outlet import OutletAway
from mailgate.intake.redis import clients

#: An answer that concerns one key alone: it is of another type.
_ONE_KEY = ("WRONGTYPE",)


class RedisOutlet:
    """``url`` may name several servers, of which the first that answers is used.

    ``max_length`` is how many events each stream holds at least.
    """

    def __init__(self, url: str, max_length: int) -> None:
        self._clients = clients(url)
        self._most = max_length

    async def send(self, posts: Sequence[Post]) -> frozenset[str | None]:
        client = self._clients[0]
        # No MULTI: the order is kept without, and a server is not stopped for all of them.
        pipe = client.pipeline(transaction=False)
        for post in posts:
            pipe.xadd(
                STREAM + (post.producer or UNKNOWN),
                {"event": post.body},
                maxlen=self._most,
                approximate=True,
            )
        try:
            answers = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            await self._next(error)
        refused = set()
        for post, answer in zip(posts, answers, strict=True):
            if isinstance(answer, ResponseError) and str(answer).startswith(_ONE_KEY):
                refused.add(post.producer)
            elif isinstance(answer, Exception):
                await self._next(answer)
        return frozenset(refused)

    async def _next(self, error: Exception) -> None:
        """Try the next server the next time."""
        with contextlib.suppress(RedisError, OSError):
            await self._clients[0].connection_pool.disconnect()
        self._clients.append(self._clients.pop(0))
        raise OutletAway(f"{type(error).__name__}: {error}") from error

    async def beat(self) -> None:
        """Nothing is needed."""

    async def close(self) -> None:
        for client in self._clients:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()
