"""A Redis list as a door, for producers that can only LPUSH.

Owns the way of an element: blocked for with BLMOVE into a list of this consumer's
own, then stamped with an identity and moved into its hash by a script, from where
it is delivered; HDEL when done. At every moment it is in exactly one key, so a kill
at any point loses nothing, and from the stamp on it keeps its identity.

Takes from the right: first in, first out for LPUSH (RPUSH makes it a stack). Keys
beside the list: ``:popped:<consumer>``, ``:taken:<consumer>``, ``:alive:<consumer>``
(expires), and the set ``:consumers``. A member without its alive key is dead, and
whoever looks adopts what it held. Not for Redis Cluster: the keys have no common tag.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any, cast

from mailgate.intake.door import BATCH_BYTES, Delivery, Trouble
from mailgate.intake.redis import IDLE, PATIENCE, RedisDoor

#: A member of the set of consumers that never lives: what it holds is anybody's.
RELEASED = "released"

_ALIVE = """
redis.call('SADD', KEYS[1] .. ':consumers', ARGV[1])
redis.call('SET', KEYS[1] .. ':alive:' .. ARGV[1], '1', 'PX', ARGV[2])
"""

#: consumer, idle ms, most, stamp, bytes → id, body, id, body, … to the one that reaches them
_TAKE = (
    _ALIVE
    + """
local taken = KEYS[1] .. ':taken:' .. ARGV[1]
local most, out, size = tonumber(ARGV[3]), {}, 0
for _, from in ipairs({KEYS[1] .. ':popped:' .. ARGV[1], KEYS[1]}) do
  while #out / 2 < most and size < tonumber(ARGV[5]) do
    local body = redis.call('RPOP', from)
    if not body then break end
    local id = ARGV[4] .. '-' .. (#out / 2)
    redis.call('HSET', taken, id, body)
    out[#out + 1] = id
    out[#out + 1] = body
    size = size + #body
  end
end
return out
"""
)

#: consumer, most, stamp, bytes → id, body, id, body, … of consumers that are dead
_ADOPT = """
local mine, most, out, n = KEYS[1] .. ':taken:' .. ARGV[1], tonumber(ARGV[2]), {}, 0
local size = 0
for _, c in ipairs(redis.call('SMEMBERS', KEYS[1] .. ':consumers')) do
  if c ~= ARGV[1] and redis.call('EXISTS', KEYS[1] .. ':alive:' .. c) == 0 then
    local theirs = KEYS[1] .. ':taken:' .. c
    local body = redis.call('RPOP', KEYS[1] .. ':popped:' .. c)
    while body do
      n = n + 1
      redis.call('HSET', theirs, ARGV[3] .. '-' .. n, body)
      body = redis.call('RPOP', KEYS[1] .. ':popped:' .. c)
    end
    for _, id in ipairs(redis.call('HKEYS', theirs)) do
      if #out >= 2 * most or size >= tonumber(ARGV[4]) then return out end
      local found = redis.call('HGET', theirs, id)
      redis.call('HSET', mine, id, found)
      redis.call('HDEL', theirs, id)
      out[#out + 1] = id
      out[#out + 1] = found
      size = size + #found
    end
    redis.call('SREM', KEYS[1] .. ':consumers', c)
  end
end
return out
"""

#: consumer, whose, ids…
_GIVE = """
for i = 3, #ARGV do
  local body = redis.call('HGET', KEYS[1] .. ':taken:' .. ARGV[1], ARGV[i])
  if body then
    redis.call('HSET', KEYS[1] .. ':taken:' .. ARGV[2], ARGV[i], body)
    redis.call('HDEL', KEYS[1] .. ':taken:' .. ARGV[1], ARGV[i])
  end
end
redis.call('SADD', KEYS[1] .. ':consumers', ARGV[2])
"""

#: consumer: what it still holds can be adopted at once
_LEAVE = """
redis.call('DEL', KEYS[1] .. ':alive:' .. ARGV[1])
if redis.call('EXISTS', KEYS[1] .. ':taken:' .. ARGV[1], KEYS[1] .. ':popped:' .. ARGV[1]) == 0 then
  redis.call('SREM', KEYS[1] .. ':consumers', ARGV[1])
end
"""


class ListDoor(RedisDoor):
    """A Redis list; each element is a message."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        producer: str | None = None,
        idle: float = IDLE,
        most_bytes: int = BATCH_BYTES,
        trouble: Trouble | None = None,
    ) -> None:
        super().__init__(url, idle=idle, most_bytes=most_bytes, trouble=trouble)
        self._key = key
        self._producer = producer
        self._held: set[bytes] = set()
        self._look_at = 0.0
        self._own_first = False
        make = self.client.register_script
        self._scripts = {s: make(s) for s in (_ALIVE, _TAKE, _ADOPT, _GIVE, _LEAVE)}

    async def _run(self, script: str, *args: str | bytes | int) -> list[bytes]:
        reply = await self._scripts[script](
            keys=[self._key], args=[self.consumer, *args], client=self.client
        )
        return cast(list[bytes], reply or [])

    async def _prepare(self) -> None:
        await self._beat()
        self._own_first = True
        self._look_at = 0.0

    async def _receive(self, most: int, wait: float) -> list[Delivery]:
        found = await self._abandoned(most) or await self._take(most)
        if not found and wait > 0:
            # The reply is not needed: the script finds the element where it was moved to.
            moved = await self.client.blmove(
                self._key,
                f"{self._key}:popped:{self.consumer}",
                cast(Any, min(wait, PATIENCE / 2)),
                "RIGHT",
                "LEFT",
            )
            if moved is not None:
                found = await self._take(most)
        return found

    async def _take(self, most: int) -> list[Delivery]:
        stamp = uuid.uuid4().hex
        reply = await self._run(_TAKE, int(self._idle * 1000), most, stamp, self._most_bytes)
        return self._deliveries(reply, redelivered=False)

    async def _abandoned(self, most: int) -> list[Delivery]:
        """What we were given without knowing it, and what the dead left behind."""
        now = asyncio.get_running_loop().time()
        if self._own_first:
            own = await self.client.hgetall(f"{self._key}:taken:{self.consumer}")
            self._own_first = False
            found = self._deliveries(
                cast(list[bytes], [x for pair in own.items() for x in pair]), redelivered=True
            )
            if found:
                return found
        if now < self._look_at:
            return []
        reply = await self._run(_ADOPT, most, uuid.uuid4().hex, self._most_bytes)
        if not reply:
            self._look_at = now + self._idle / 3
        return self._deliveries(reply, redelivered=True)

    def _deliveries(self, reply: list[bytes], *, redelivered: bool) -> list[Delivery]:
        out = []
        for id_, body in zip(reply[::2], reply[1::2], strict=True):
            if id_ in self._held:
                continue
            self._held.add(id_)
            out.append(
                Delivery(
                    body=body,
                    source="redis-list",
                    identity=id_.decode(),
                    redelivered=redelivered,
                    refusal=None,
                    handle=id_,
                    producer=self._producer,
                )
            )
        return out

    async def done(self, deliveries: Sequence[Delivery]) -> bool:
        ids = [cast(bytes, d.handle) for d in deliveries]
        try:
            return not ids or await self._try(
                lambda: self.client.hdel(
                    f"{self._key}:taken:{self.consumer}", *cast(list[str], ids)
                )
            )
        finally:
            self._held.difference_update(ids)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        ids = [cast(bytes, d.handle) for d in deliveries]
        self._held.difference_update(ids)
        if ids:
            await self._try(lambda: self._run(_GIVE, RELEASED, *ids))

    async def _beat(self) -> None:
        await self._run(_ALIVE, int(self._idle * 1000))

    async def _leave(self) -> None:
        await self._run(_LEAVE)
