"""A process's part of the connections that a relay allows to all processes together.

Owns the count of what this process has, which the journal is told before a connection
is opened and after it is closed. Never opens one: ``smtp.desk`` does, and asks here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mailgate.journal import connections
from mailgate.journal.database import Database, JournalAway


class Seats:
    """The connections to one relay, at most ``most`` over all processes."""

    def __init__(self, database: Database, lease: Callable[[], int], relay: str, most: int) -> None:
        self._database, self._lease, self._relay, self._most = database, lease, relay, most
        self._have = 0
        self._one_at_a_time = asyncio.Lock()

    async def take(self) -> bool:
        """Whether one more connection may be opened; none while the journal is away."""
        async with self._one_at_a_time:
            lease, have = self._lease(), self._have
            try:
                free = await self._database.run(
                    lambda c: connections.take(c, lease, self._relay, have, self._most)
                )
            except JournalAway:
                return False
            self._have += free
            return free

    async def give_back(self) -> None:
        """One is closed. What cannot be written now is set right by the next that is."""
        async with self._one_at_a_time:
            self._have -= 1
            await self._write()

    async def renew(self) -> None:
        """We have a new lease: what is still open is counted under it."""
        async with self._one_at_a_time:
            if self._have:
                await self._write()

    async def _write(self) -> None:
        lease, have = self._lease(), self._have
        try:
            await self._database.run(lambda c: connections.write(c, lease, self._relay, have))
        except JournalAway:
            return
