"""The clock: Celery beat that also fires schedules, and leaves its trace in the journal.

Owns the look once a second and the asking of workers. Several clocks at once are harmless:
each fire is one row, and a task that comes twice finds it taken. Never reads a source or
writes a message: ``chores`` does, in a worker.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from typing import Any

from celery.beat import Scheduler

from mailgate.config.shape import Config
from mailgate.worker.settings import CHORES, FIRE

#: Seconds between two looks, and between two traces.
_LOOK, _TRACE = 1.0, 15.0
#: A worker that was asked gets so long before it is asked again (seconds).
_PATIENCE = 30.0
#: For the journal to answer (seconds): nothing fires meanwhile.
_ANSWER = 10.0

_log = logging.getLogger("mailgate.beat")


class Clock(Scheduler):
    """Celery's scheduler, in memory: beat has nothing to remember, the journal has."""

    _watch: Watch | None = None

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Look what is due; gives the seconds until the next look."""
        wait = super().tick(*args, **kwargs)
        from mailgate.worker.celery_app import config

        if self._watch is None:
            self._watch = Watch(config())
        self._watch.adopt(config())
        for name, at in self._watch.look():
            try:
                self.app.send_task(FIRE, (name, at), queue=CHORES, expires=_PATIENCE, retry=False)
            except Exception as error:  # noqa: BLE001 - whatever the transport raises: asked again
                self._watch.forget(name, at)
                _log.warning("no worker can be asked to fire: %s", type(error).__name__)
        return min(float(wait or _LOOK), _LOOK)


class Watch:
    """What is due by the journal's clock, of the schedules of a configuration."""

    def __init__(self, config: Config) -> None:
        # Here and not above: who only loads the app needs none of it.
        from mailgate.journal.database import Database

        self._config = config
        self._database = Database(config.journal.url or "", hot=False, patience=_ANSWER)
        self._next: Mapping[str, int | None] = {}
        self._asked: dict[tuple[str, int], float] = {}
        self._traced = -_TRACE
        self._away = False

    def adopt(self, config: Config) -> None:
        """Go by the schedules of another configuration, from the next look on."""
        if config is not self._config:
            self._config, self._next = config, {}

    def look(self) -> list[tuple[str, int]]:
        """The fires that a worker is to be asked for now; none while the journal is away."""
        try:
            found = self._look()
        except Exception as error:  # noqa: BLE001 - away, or not made yet: the clock goes on
            if not self._away:
                said = str(error).splitlines() or [type(error).__name__]
                _log.error("the journal is away: nothing fires", extra={"error": said[0]})
            self._away = True
            return []
        if self._away:
            _log.warning("the journal is back")
        self._away = False
        now = time.monotonic()
        self._asked = {one: at for one, at in self._asked.items() if now - at < _PATIENCE}
        fresh = [one for one in found if one not in self._asked]
        self._asked |= dict.fromkeys(fresh, now)
        return fresh

    def forget(self, name: str, at: int) -> None:
        """Nobody could be asked for this fire: it is told again with the next look."""
        self._asked.pop((name, at), None)

    def _look(self) -> list[tuple[str, int]]:
        from mailgate.journal import schedules as book
        from mailgate.schedules.calendar import come

        if time.monotonic() - self._traced >= _TRACE:
            host = socket.gethostname()
            self._database.run_now(lambda c: book.beat(c, host, self._database.now()))
            self._traced = time.monotonic()
        if not self._config.schedules:
            return []
        self._next = come(self._database, self._config, self._next)
        names = list(self._config.schedules)
        now = self._database.now()
        return self._database.read_now(lambda c: book.waiting(c, names, now))
