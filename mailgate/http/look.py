"""The journal's gauges, looked up by the one process that exports them.

Owns how often: however many scrape, the looking takes at most a twentieth of the time.
"""

from __future__ import annotations

import threading
import time

from mailgate.config.shape import Config
from mailgate.journal import gauges
from mailgate.journal.database import Connection, Database, JournalAway
from mailgate.metrics import families
from mailgate.metrics.tally import Tally, Totals, together

#: Seconds for which an answer stands, and how many times longer than it took to get.
_STANDS = 5.0
#: And for which the journal is waited for: so long every probe waits as well.
_ANSWER = 20.0
_TIMES = 20.0


class JournalLook:
    """A connection of its own: nobody's mail waits for it. Close it at the end."""

    def __init__(self, config: Config) -> None:
        self._database = Database(config.journal.url or "", hot=False, patience=_ANSWER)
        self._lease = config.worker.lease
        self._schedules = tuple(config.schedules)
        self._lock = threading.Lock()
        self._said = Tally()
        self._until = float("-inf")
        self._error = "not asked yet"

    def totals(self) -> Totals:
        """The gauges; with the journal away only that it is."""
        self._refresh()
        return together([self._said.snapshot()])

    def check(self) -> str:
        """Whether the journal answers."""
        self._refresh()
        return self._error

    def _refresh(self) -> None:
        with self._lock:
            begun = time.monotonic()
            if begun < self._until:
                return
            said = Tally()
            try:
                self._database.read_now(lambda c: self._read(c, said))
                self._error = ""
            except JournalAway:
                said, self._error = Tally(), "the journal cannot be reached"
            took = time.monotonic() - begun
            said.set(families.JOURNAL_UP, (), int(not self._error))
            said.set(families.JOURNAL_LOOK, (), took)
            self._said = said
            self._until = time.monotonic() + max(_STANDS, _TIMES * took)

    def _read(self, connection: Connection, said: Tally) -> None:
        now = self._database.now()
        gauges.read(connection, now, now - int(self._lease * 1000), said, self._schedules)

    def close(self) -> None:
        self._database.close()
