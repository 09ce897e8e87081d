"""Outcomes one by one, after a turn that could not write them together.

Owns how long an outcome is tried that nothing but mailgate itself stands in the way of:
none holds up the others for ever. Never decides what follows from an outcome.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from mailgate.delivery.conversation import Trouble
from mailgate.delivery.turns import Ended, unwritten
from mailgate.journal.database import Database, JournalAway
from mailgate.journal.settling import Settlement, Settling

#: An outcome that could not be written so many times, and no other either, is given up.
HOPELESS = 10


class OneByOne:
    def __init__(self, database: Database, settling: Settling, trouble: Trouble) -> None:
        self._database = database
        self._settling = settling
        self._trouble = trouble
        # How often an outcome could not be written, by id and token.
        self._refused: Counter[tuple[int, int]] = Counter()

    async def write(self, waiting: list[Ended], over: Callable[[Ended, bool], None]) -> None:
        """Write each of ``waiting`` in a transaction of its own, and take it out of there.

        ``over`` is told of each that needs no more, and whether it was still ours to write.
        One that cannot be written where another can, or again and again, is left there with
        the least to write of it: an operator decides.
        """
        wrote, refused = False, []
        for ended in list(waiting):
            try:
                ours = await self._written(ended.settlement)
            except JournalAway as error:
                self._trouble("the journal is away", error)
                return
            except Exception as error:  # noqa: BLE001 - what it is does not matter
                self._trouble("an outcome could not be written", error)
                refused.append(ended)
            else:
                wrote = True
                waiting.remove(ended)
                over(ended, ours)
        for ended in refused:
            if self._hopeless(ended, wrote):
                waiting[waiting.index(ended)] = unwritten(ended, self._database.now())

    def forget(self) -> None:
        """All is written: nobody has been refused."""
        self._refused.clear()

    def _hopeless(self, ended: Ended, others_go: bool) -> bool:
        """Whether it is this outcome that cannot be written, and not all of them."""
        who = (ended.claim.recipient_id, ended.claim.token)
        self._refused[who] += 1
        return others_go or self._refused[who] >= HOPELESS

    async def _written(self, settlement: Settlement) -> bool:
        now = self._database.now()
        one = [settlement]
        return bool(await self._database.run(lambda c: self._settling.write(c, one, now)))
