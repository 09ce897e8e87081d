"""Connections that count against a number which other processes share.

Owns asking for a seat before a connection is opened and giving it back when it is
closed, and how soon it is asked again. Never knows who counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from mailgate.model.outcome import Outcome, Reply, Scope, untouched
from mailgate.model.state import Phase

#: Seconds after which seats that others had taken are asked for again.
AGAIN = 0.25
#: A message that finds no connection in this time is given back (seconds).
PATIENCE = 5.0
#: Where others may be waiting, a connection is not kept idle for longer (seconds).
IDLE = 1.0


class Seats(Protocol):
    async def take(self) -> bool:
        """Whether one more connection may be opened."""
        ...

    async def give_back(self) -> None: ...


class Entrance:
    """The way to the seats; without any it is open always."""

    def __init__(
        self, seats: Seats | None, clock: Callable[[], float], random: Callable[[], float]
    ) -> None:
        self._seats, self._clock, self._random = seats, clock, random
        self._again_at = 0.0
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def shared(self) -> bool:
        return self._seats is not None

    @property
    def wait(self) -> float:
        """Seconds until it is worth asking again."""
        return max(0.0, self._again_at - self._clock())

    async def enter(self) -> bool:
        """Whether a connection may be opened; cancelled, it takes none."""
        if self._seats is None:
            return True
        asking = asyncio.ensure_future(self._seats.take())
        try:
            free = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(self._regret)
            raise
        if not free:
            self._again_at = self._clock() + AGAIN * (0.5 + self._random())
        return free

    def leave(self) -> None:
        """A connection that had entered is closed."""
        if self._seats is not None:
            task = asyncio.get_running_loop().create_task(self._seats.give_back())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _regret(self, asking: asyncio.Future[bool]) -> None:
        if not asking.cancelled() and asking.exception() is None and asking.result():
            self.leave()

    async def drain(self) -> None:
        """Until all that left has been told."""
        await asyncio.gather(*self._leaving, return_exceptions=True)


def none_free() -> Outcome:
    """What a message is told that has waited for long enough: nothing was said."""
    reply = Reply(0, "other workers have all connections that the relay allows")
    return untouched(Phase.CONNECT, reply, "limit", Scope.MESSAGE, retry_after=2.0)
