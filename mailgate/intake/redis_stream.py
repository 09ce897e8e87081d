"""A Redis stream as a door.

Owns the consumer group: reading, acknowledging by XACK and XDEL, keeping what a
living process holds from being taken over, and taking over what a dead one left.
Never trims: MAXLEN would delete entries that nobody has read.

A delivery belongs to its consumer until it is done. While we hold entries we reset
their idle time, so whatever stays idle for ``IDLE`` seconds has lost its holder,
and any consumer claims it (XAUTOCLAIM).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

from redis.exceptions import RedisError, ResponseError

from mailgate.intake.door import Delivery, Trouble
from mailgate.intake.redis import BATCH_BYTES, IDLE, PATIENCE, RedisDoor

GROUP = "mailgate"
FIELD = b"message"

#: Deletes consumers that hold nothing and were not seen for a day; one step, so that
#: none can read between the look and the deletion (that would lose what it read).
_FORGET = """
for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local f = {}
  for i = 1, #c, 2 do f[c[i]] = c[i + 1] end
  if f['pending'] == 0 and (f['name'] == ARGV[2] or f['idle'] > tonumber(ARGV[3])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], f['name'])
  end
end
"""
_A_DAY_MS = 86_400_000


class StreamDoor(RedisDoor):
    """A Redis stream with the consumer group ``mailgate``; the field is ``message``."""

    def __init__(
        self,
        url: str,
        stream: str,
        *,
        producer: str | None = None,
        idle: float = IDLE,
        trouble: Trouble | None = None,
    ) -> None:
        super().__init__(url, idle=idle, trouble=trouble)
        self._stream = stream
        self._producer = producer
        self._held: set[bytes] = set()
        self._mean = 1.0
        self._look_at = 0.0
        self._own_first = False
        self._forget: Any = None

    async def _prepare(self) -> None:
        try:
            await self.client.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._own_first = True
        self._look_at = 0.0

    async def _receive(self, most: int, wait: float) -> list[Delivery]:
        most = max(1, min(most, int(BATCH_BYTES / self._mean)))
        try:
            found = await self._abandoned(most) or await self._read(most, wait)
        except ResponseError as error:
            if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                raise
            # Somebody flushed the server: the group is made again and reads from 0.
            await self._prepare()
            return []
        if found:
            size = sum(len(d.body) for d in found) / len(found)
            self._mean = max(1.0, 0.7 * self._mean + 0.3 * size, 0.1 * size)
        return found

    async def _abandoned(self, most: int) -> list[Delivery]:
        """What we were given without knowing it, and what the dead left behind."""
        now = asyncio.get_running_loop().time()
        if self._own_first:
            reply: Any = await self.client.xreadgroup(
                GROUP, self.consumer, {self._stream: "0"}, count=most + len(self._held)
            )
            self._own_first = False
            found = await self._deliveries(reply[0][1] if reply else [], redelivered=True)
            if found:
                return found
        if now < self._look_at:
            return []
        # Again at once while there is more; otherwise when something can be idle enough.
        cursor: Any = "0-0"
        while True:
            reply = await self.client.xautoclaim(
                self._stream,
                GROUP,
                self.consumer,
                int(self._idle * 1000),
                start_id=cursor,
                count=most,
            )
            cursor = reply[0]
            found = await self._deliveries(reply[1], redelivered=True)
            if found:
                return found
            if cursor == b"0-0":
                self._look_at = now + self._idle / 3
                await self._forget_consumers("")
                return []

    async def _read(self, most: int, wait: float) -> list[Delivery]:
        block = max(1, int(min(wait, PATIENCE / 2) * 1000)) if wait > 0 else None
        reply: Any = await self.client.xreadgroup(
            GROUP, self.consumer, {self._stream: ">"}, count=most, block=block
        )
        return await self._deliveries(reply[0][1] if reply else [], redelivered=False)

    async def _deliveries(self, entries: Any, *, redelivered: bool) -> list[Delivery]:
        out = []
        gone = []
        for entry_id, values in entries:
            # 6.2 gives (None, None) for entries that were deleted while pending.
            if entry_id is None or entry_id in self._held:
                continue
            if values is None:
                gone.append(entry_id)
                continue
            self._held.add(entry_id)
            body = values.get(FIELD)
            refusal = None
            if body is None:
                refusal = "is an entry of the Redis stream that has no field named message"
                body = _as_json(values)
            out.append(
                Delivery(
                    body=body,
                    source="redis-stream",
                    identity=f"{self._stream}:{entry_id.decode()}",
                    redelivered=redelivered,
                    refusal=refusal,
                    handle=entry_id,
                    producer=self._producer,
                )
            )
        if gone:
            await self.client.xack(self._stream, GROUP, *gone)
        return out

    async def done(self, deliveries: Sequence[Delivery]) -> bool:
        if not deliveries:
            return True
        ids = [cast(bytes, d.handle) for d in deliveries]
        try:
            async with self.client.pipeline(transaction=True) as pipe:
                pipe.xack(self._stream, GROUP, *ids)
                pipe.xdel(self._stream, *ids)
                await pipe.execute()
        except (RedisError, OSError) as error:
            self._lost(error)
            return False
        finally:
            self._held.difference_update(ids)
        return True

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        ids = [cast(bytes, d.handle) for d in deliveries]
        self._held.difference_update(ids)
        if ids:
            await self._try(lambda: self._set_idle(ids, int(self._idle * 1000) + 1))

    async def _beat(self) -> None:
        held = list(self._held)
        for i in range(0, len(held), 1000):
            await self._set_idle(held[i : i + 1000], 0)

    async def _set_idle(self, ids: list[bytes], milliseconds: int) -> None:
        """JUSTID counts no delivery; entries that are no longer ours are left alone."""
        mine = await self.client.xpending_range(self._stream, GROUP, "-", "+", 10**6, self.consumer)
        still = {row["message_id"] for row in mine}.intersection(ids)
        if still:
            await self.client.xclaim(
                self._stream,
                GROUP,
                self.consumer,
                0,
                list(still),
                idle=milliseconds,
                justid=True,
            )

    async def _leave(self) -> None:
        if self._held:
            await self._set_idle(list(self._held), int(self._idle * 1000) + 1)
        await self._forget_consumers(self.consumer)

    async def _forget_consumers(self, also: str) -> None:
        if self._forget is None:
            self._forget = self.client.register_script(_FORGET)
        await self._forget(keys=[self._stream], args=[GROUP, also, _A_DAY_MS], client=self.client)


def _as_json(values: dict[bytes, bytes]) -> bytes:
    """The fields of an entry that is refused, so that they can be parked and read."""
    text = {
        k.decode(errors="backslashreplace"): v.decode(errors="backslashreplace")
        for k, v in values.items()
    }
    return json.dumps(text, ensure_ascii=False).encode()
