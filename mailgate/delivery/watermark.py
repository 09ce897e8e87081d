"""What this host remembers of the journal, so that an older copy of it is noticed.

Owns one small file in the state directory: which history, and up to when. The journal is
told the same first, in the transaction of the heartbeat, so that it never knows less than
the file, unless it was set back: restored from a backup, or lost its end with the server
that a standby replaced. Then nothing may be sent, since what it calls waiting may have been
sent, until an operator has run ``mailgate db restored``.

Never judges which mail that is (``journal.restoring``).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from mailgate.journal import history
from mailgate.journal.database import Connection
from mailgate.journal.history import JournalSetBack

FILE = "journal.reached"


class Watermark:
    """The file of one state directory; its processes share it, each writing it whole."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE
        self._directory, self._history, self._at = secrets.token_hex(8), "", 0
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(self._path.read_text())
            self._directory = str(said["directory"])
            self._history, self._at = str(said["history"]), int(said["at"])

    def set_back(self, connection: Connection) -> str:
        """How the journal is older than this host knows it; empty when it is not. A look."""
        if history.found(connection) != self._history:
            return ""
        known = history.reached(connection, self._directory)
        if known >= self._at:
            return ""
        return (
            f"it was restored: it knows nothing of this host after {_clock(known)}, and we have "
            f"worked with it until {_clock(self._at)}. What it calls waiting may have been sent"
        )

    def reach(self, connection: Connection, now: int) -> None:
        """Tell the journal that we work with it now; raises ``JournalSetBack``."""
        if older := self.set_back(connection):
            raise JournalSetBack(f"{older}: run mailgate db restored")
        if (name := history.name_of(connection)) != self._history:
            # Another journal, or one whose restoration is settled.
            self._history, self._at = name, 0
        history.reach(connection, self._directory, now)

    def keep(self, now: int) -> None:
        """The journal has it for good: remember it. A few microseconds; nothing is synced."""
        self._at = max(self._at, now)
        said = {"directory": self._directory, "history": self._history, "at": self._at}
        beside = self._path.with_name(f"{FILE}.{os.getpid()}")
        beside.write_text(json.dumps(said))
        beside.replace(self._path)


def _clock(at: int) -> str:
    if not at:
        return "its beginning"
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
