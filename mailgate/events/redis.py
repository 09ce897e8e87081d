"""A Redis stream for each producer, capped.

Owns the streams' names and the cap. Never reads one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from mailgate.contract.event import STREAM, UNKNOWN
from mailgate.events.document import Post
from mailgate.events.outlet import OutletAway
from mailgate.intake.redis import clients

#: A batch in one command: five hundred commands cost the client ten times as much. A key
#: of another type concerns one producer; any other error is the server's.
_ADD = """
local refused = {}
for i, key in ipairs(KEYS) do
  local r = redis.pcall('XADD', key, 'MAXLEN', '~', ARGV[1], '*', 'event', ARGV[i + 1])
  if type(r) == 'table' and r.err then
    if not string.find(r.err, 'WRONGTYPE') then return r end
    refused[#refused + 1] = i
  end
end
return refused
"""


class RedisOutlet:
    """``url`` may name several servers, of which the first that answers is used.

    ``max_length`` is how many events each stream holds at least.
    """

    def __init__(self, url: str, max_length: int) -> None:
        self._clients = clients(url)
        self._most = max_length

    async def open(self) -> None:
        """A stream is there once there is something in it; who reads it may wait before."""

    async def send(self, posts: Sequence[Post]) -> frozenset[str | None]:
        keys = [STREAM + (post.producer or UNKNOWN) for post in posts]
        bodies = [post.body for post in posts]
        try:
            refused: Any = await self._clients[0].eval(
                _ADD, len(keys), *keys, str(self._most), *bodies
            )
        except (RedisError, OSError) as error:
            await self._next(error)
        return frozenset(posts[place - 1].producer for place in refused)

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
