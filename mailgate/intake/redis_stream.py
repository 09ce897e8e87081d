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

from mailgate.intake.door import BATCH_BYTES, Delivery, Trouble
from mailgate.intake.redis import IDLE, PATIENCE, RedisDoor

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

#: A stream does not tell how large an entry is before it is read: so many are read at once,
#: and then it is seen whether there is room for more.
AT_ONCE = 4
#: group, consumer, most, bytes, at once → entries, until they reach the bytes
_READ = """
local out, size = {}, 0
while #out < tonumber(ARGV[3]) and size < tonumber(ARGV[4]) do
  local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT',
                           math.min(tonumber(ARGV[5]), tonumber(ARGV[3]) - #out),
                           'STREAMS', KEYS[1], '>')
  if not reply then break end
  for _, entry in ipairs(reply[1][2]) do
    out[#out + 1] = entry
    for _, part in ipairs(entry[2]) do size = size + #part end
  end
end
return out
"""


class StreamDoor(RedisDoor):
    """A Redis stream with the consumer group ``mailgate``; the field is ``message``."""

    def __init__(
        self,
        url: str,
        stream: str,
        *,
        producer: str | None = None,
        idle: float = IDLE,
        most_bytes: int = BATCH_BYTES,
        trouble: Trouble | None = None,
    ) -> None:
        super().__init__(url, idle=idle, most_bytes=most_bytes, trouble=trouble)
        self._stream = stream
        self._producer = producer
        self._held: set[bytes] = set()
        self._look_at = 0.0
        self._own_first = False
        self._forget: Any = None
        self._reading = self.client.register_script(_READ)

    async def _prepare(self) -> None:
        try:
            await self.client.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._own_first = True
        self._look_at = 0.0

    async def _receive(self, most: int, wait: float) -> list[Delivery]:
        try:
            return await self._abandoned(most) or await self._read(most, wait)
        except ResponseError as error:
            # A script's error may have other words before the server's own.
            if "NOGROUP" not in str(error) and not str(error).startswith("UNBLOCKED"):
                raise
            # Somebody flushed the server: the group is made again and reads from 0.
            await self._prepare()
            return []

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
                count=min(most, AT_ONCE),
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
        reply: Any = await self._reading(
            keys=[self._stream],
            args=[GROUP, self.consumer, most, self._most_bytes, AT_ONCE],
            client=self.client,
        )
        entries = [(id_, dict(zip(said[::2], said[1::2], strict=True))) for id_, said in reply]
        if not entries and wait > 0:
            # Whatever comes first: what comes with it is there at the next look.
            reply = await self.client.xreadgroup(
                GROUP,
                self.consumer,
                {self._stream: ">"},
                count=1,
                block=max(1, int(min(wait, PATIENCE / 2) * 1000)),
            )
            entries = reply[0][1] if reply else []
        return await self._deliveries(entries, redelivered=False)

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
