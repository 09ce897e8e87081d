"""The bytes of attachments that a process may hold at once.

Owns who has how much of it, and who waits. Never reads or renders anything. Without it a
hundred conversations, each with a file of some megabytes and the mail made of it, would be
a process of gigabytes.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """Room for ``most`` bytes, or for one claim that is larger than that alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        return self._held

    async def take(self, size: int, *, urgent: bool = False) -> None:
        """Return when there is room; who came first is first, but for the urgent ones."""
        if not self._waiting and self._fits(size):
            self._held += size
            return
        served: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if urgent else self._waiting.append)((size, served))
        try:
            await served
        except asyncio.CancelledError:
            if served.cancelled():
                # Its place goes when it is the first; it may have been that.
                self._serve()
            else:
                self.give(size)
            raise

    def give(self, size: int) -> None:
        self._held -= size
        self._serve()

    def _fits(self, size: int) -> bool:
        return self._held == 0 or self._held + size <= self._most

    def _serve(self) -> None:
        while self._waiting:
            size, served = self._waiting[0]
            # Who was cancelled wants nothing any more, also before he has run again.
            wanted = not served.cancelled()
            if wanted and not self._fits(size):
                return
            self._waiting.popleft()
            if wanted:
                self._held += size
                served.set_result(None)


class Hold:
    """What one conversation has of the room, until its bytes are gone."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0

    async def take(self, size: int, *, urgent: bool) -> None:
        await self._room.take(size, urgent=urgent)
        self._size = size

    def release(self) -> None:
        """Give it back; what was given back already is nothing."""
        size, self._size = self._size, 0
        if size:
            self._room.give(size)
