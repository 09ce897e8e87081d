"""Who is not asked for permits, because all places of its destination are taken.

Owns what is remembered of it: a bucket whose heads found no place is left alone until a
conversation of this process has ended, or for a moment, since others' end unseen. Only
a look: the claim itself counts (``journal.places``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from mailgate.journal.database import Database
from mailgate.journal.queue import Candidate, Queue
from mailgate.journal.settling import Settlement

#: Seconds until a look at places that others may have freed.
AGAIN = 0.25


class Crowd:
    def __init__(self, database: Database, queue: Queue) -> None:
        self._database, self._queue = database, queue
        self._shut: dict[int, float] = {}
        self._ended: Sequence[Settlement] = ()

    async def outside(self, candidates: Sequence[Candidate]) -> set[int]:
        """The recipients for whom there is no place now."""
        if not any(c.caps for c in candidates):
            return set()
        return await self._database.read(lambda c: self._queue.crowded(c, candidates, self._ended))

    def shut(self, bucket: int) -> None:
        """Those at its head found no place."""
        self._shut[bucket] = time.monotonic() + AGAIN

    def is_shut(self, bucket: int) -> bool:
        return self._shut.get(bucket, 0.0) > time.monotonic()

    def ended(self, settlements: Sequence[Settlement]) -> None:
        """What this take settles, before it claims: there may be places again."""
        self._ended = settlements
        if settlements:
            self._shut.clear()

    def opens_in(self) -> float | None:
        """Seconds until the first bucket is looked into again; None when none is shut."""
        clock = time.monotonic()
        self._shut = {b: t for b, t in self._shut.items() if t > clock}
        return min(self._shut.values()) - clock if self._shut else None
