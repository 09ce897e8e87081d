"""A process reads its configuration again while it runs, and tells what came of it.

Owns when that is (a request in the journal, a signal), that a broken configuration changes
nothing, and what others see of it in the journal. What can be taken while a process runs
is ``config.reloading``'s to say, and how it is taken is its owner's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mailgate.config.faults import ConfigError
from mailgate.config.relays import Relay
from mailgate.config.reloading import Renewal, fingerprint, renewed
from mailgate.config.shape import Config
from mailgate.journal import processes
from mailgate.journal.database import Database
from mailgate.journal.processes import Process

_log = logging.getLogger("mailgate.reload")

#: How often a process without a lease says that it lives, and when it is thought gone (seconds).
EVERY, GONE = 5.0, 20.0
#: A request this short before a process began may have been meant for it (ms).
_EARLIER = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """Where a process's configuration comes from, while it runs.

    ``read`` raises ``ConfigError``; ``signals`` counts those that asked for it. ``number``
    is the request that a fork's configuration is as old as; None: it was just read.
    """

    read: Callable[[], Config]
    signals: Callable[[], int] = lambda: 0
    number: int | None = None
    adopted: Callable[[Config], None] = lambda config: None


@dataclass(slots=True)
class Reloader:
    """``adopt`` puts a renewal in force; called on the loop, or where ``look_now`` is."""

    database: Database
    kind: str
    config: Config
    source: Source
    adopt: Callable[[Renewal], None]
    _row: Process | None = None
    _number: int = 0
    _signals: int = 0
    _seen: float = 0.0
    _known: dict[str, Relay] = field(default_factory=dict)

    async def begin(self, id_: int) -> None:
        """Write the process down under ``id_``, with what is in force by then.

        Raises ``JournalAway``.
        """
        await self._step(await asyncio.to_thread(self._begun, id_))
        await asyncio.to_thread(self._write)

    async def look(self) -> None:
        """See whether somebody asks for it, and do it. Raises ``JournalAway``."""
        if await asyncio.to_thread(self._asked):
            await self._step(True)
            await asyncio.to_thread(self._write)

    async def _step(self, wanted: bool) -> None:
        if wanted:
            self._take(await asyncio.to_thread(self._read))

    def begin_now(self, id_: int) -> None:
        """The same for a process without a loop."""
        if self._begun(id_):
            self._take(self._read())
        self._write()

    def look_now(self) -> None:
        if self._asked():
            self._take(self._read())
            self._write()

    def end_now(self) -> None:
        """Forget the process. Raises ``JournalAway``."""
        if (row := self._row) is not None:
            self.database.run_now(lambda c: processes.remove(c, row.id))

    async def moved(self, id_: int) -> None:
        """The process has another lease now."""
        assert self._row is not None
        self._row = replace(self._row, id=id_)
        await asyncio.to_thread(self._write)

    # --- steps ----------------------------------------------------------------------------

    def _begun(self, id_: int) -> bool:
        now = self.database.now()
        asked = self.database.read_now(processes.asked_last)
        self._row = Process(
            id_, self.kind, socket.gethostname(), os.getpid(), now, fingerprint(self.config), now
        )
        self._signals = self.source.signals()
        self._number = asked.number
        if self.source.number not in (None, asked.number) or self._signals:
            return True
        return asked.number > 0 and asked.at > now - _EARLIER

    def _asked(self) -> bool:
        now = self.database.now()
        row = self._row
        if row is not None and self.kind != "worker" and now - self._seen >= EVERY * 1000:
            self.database.run_now(lambda c: processes.seen(c, row.id, now))
            self._seen = now
        signals = self.source.signals()
        number = self.database.read_now(processes.asked_last).number
        wanted = signals != self._signals or number != self._number
        self._signals, self._number = signals, number
        return wanted

    def _read(self) -> Config | ConfigError:
        try:
            return self.source.read()
        except ConfigError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, what is in force stays
            _log.error("the configuration could not be read again", exc_info=error)
            return ConfigError([])

    def _take(self, new: Config | ConfigError) -> None:
        assert self._row is not None
        now = self.database.now()
        if isinstance(new, ConfigError):
            faults = [str(fault) for fault in new.faults]
            for fault in faults:
                _log.error("the new configuration is refused: %s", fault)
            self._row = replace(self._row, answer=self._said("refused", faults=faults))
            return
        self._known |= self.config.relays
        renewal = renewed(self.config, new, self._known)
        changed = bool(renewal.taken)
        if changed:
            try:
                self.adopt(renewal)
            except (OSError, ValueError) as error:
                # A file of a new relay that cannot be read, a password that is not there.
                _log.error("the new configuration is refused: %s", error)
                answer = self._said("refused", faults=[str(error)])
                self._row = replace(self._row, answer=answer)
                return
            self.config = renewal.config
            self.source.adopted(renewal.config)
        result = "taken" if changed else "unchanged"
        _log.info(
            "the configuration was read again",
            extra={
                "result": result,
                "taken": ", ".join(renewal.taken),
                "needs_restart": ", ".join(renewal.restart),
            },
        )
        answer = self._said(result, taken=renewal.taken, restart=renewal.restart)
        row = replace(self._row, config=fingerprint(self.config), answer=answer)
        self._row = replace(row, config_at=now) if changed else row

    def _said(self, result: str, **more: Any) -> Mapping[str, Any]:
        return {"number": self._number, "result": result, **more}

    def _write(self) -> None:
        row, now = self._row, self.database.now()
        assert row is not None
        self._seen = now
        self.database.run_now(lambda c: processes.write(c, row, now))
