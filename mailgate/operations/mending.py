"""Templates that change while mail waits for them.

Owns the loop that keeps a process's templates as they are on disk, and the release
of recipients that were held for a template which serves now. Never judges a
template and never renders.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import NoReturn

from mailgate.journal.database import Database, JournalAway
from mailgate.journal.filters import Filter
from mailgate.journal.lapsing import MENDABLE as CLASSES
from mailgate.journal.search import held_for
from mailgate.journal.surgery import Act
from mailgate.model.state import Lane, State
from mailgate.operations.resend import How, move_all
from mailgate.render.errors import Broken
from mailgate.render.shelf import Shelf

_log = logging.getLogger(__name__)

#: Seconds between two looks at the files. A change is read at the second look.
EVERY = 2.0
#: Mail that was rendered before a renewal may be written as held so long after it (ms).
_LATE = 10_000


async def keep_fresh(shelf: Shelf, changed: Callable[[frozenset[str]], None]) -> NoReturn:
    """Renew ``shelf`` until cancelled; ``changed`` is told what is other than before."""
    while True:
        await asyncio.sleep(EVERY)
        try:
            names = await asyncio.to_thread(shelf.renew)
        except Exception as error:  # noqa: BLE001 - the templates that are read serve on
            _log.error("the templates could not be looked at: %s", type(error).__name__)
            continue
        if names:
            changed(names)


class Release:
    """Lets recipients go on whose template has been mended.

    A recipient is let go only when it was held before its template was read as it is
    now: who is held again by a good template (an expression that only its data makes
    wrong) waits for a person, and workers that have not got the new files yet play no
    ball with those that have.
    """

    def __init__(
        self,
        shelf: Shelf,
        database: Database,
        ring: Callable[[Lane], None],
        categories: Mapping[str, str],
    ) -> None:
        self._shelf, self._database, self._ring = shelf, database, ring
        self._categories = categories
        self._begun = database.now()
        self._read_at: dict[str, int] = {}
        # Times (ms) at which to look whether anyone waits: at the start, at each
        # change, and again when what was under way at the change is written.
        self._looks = [self._begun, self._begun + 2 * _LATE]

    def changed(self, names: frozenset[str]) -> None:
        """These templates have just been read anew."""
        now = self._database.now()
        self._read_at.update(dict.fromkeys(names, now))
        self._looks += [now, now + 2 * _LATE]

    def due(self) -> bool:
        return bool(self._looks) and min(self._looks) <= self._database.now()

    def go(self) -> int:
        """Release who may go on; gives how many. Blocks. Raises ``JournalAway``."""
        now = self._database.now()
        count = 0
        for name in self._database.read_now(lambda c: held_for(c, CLASSES)):
            found = self._shelf.catalogue.get(name)
            if found is not None and not isinstance(found, Broken):
                count += sum(self._one(name, kind) for kind in CLASSES)
        self._looks = [at for at in self._looks if at > now]
        if count:
            _log.info("recipients go on whose templates were mended", extra={"count": count})
        return count

    def _one(self, name: str, error_class: str) -> int:
        until = self._read_at.get(name, self._begun) + _LATE
        wanted = Filter(
            states=(State.HELD,), template=name, error_class=error_class, changed_before=until
        )
        act = Act("mailgate", "release", f"the template {name} serves again")
        moving = move_all(
            self._database,
            wanted,
            State.QUEUED,
            act,
            self._ring,
            # Nobody has said that it may go although its time is over.
            how=How(late=False),
            categories=self._categories,
        )
        return sum(len(moved.recipient_ids) for moved in moving)


async def release_when_due(release: Release) -> NoReturn:
    """Release whenever there is a reason to look, until cancelled."""
    while True:
        try:
            if release.due():
                await asyncio.to_thread(release.go)
        except JournalAway:
            pass  # who beats the heart says so; the look stays due
        except Exception as error:  # noqa: BLE001 - held mail is safe, and the worker goes on
            _log.error("held recipients could not be released: %s", type(error).__name__)
        await asyncio.sleep(EVERY)
