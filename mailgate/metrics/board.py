"""Where the processes of one worker hang out their numbers, and their parent reads them.

Owns a directory for each parent, a file in it for each child, and what is kept of the
children that have ended. A child writes its whole snapshot about once a second beside
and renames it over, so a reader sees all of it or the one before; one that is killed
takes the counts of its last second with it. Never serves anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mailgate.metrics.tally import Totals

#: What a silent process showed of this moment (gauges) is no longer true after this (seconds).
STALE = 15.0


class Board:
    """One parent's directory. Made before its children; they get it by the fork."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock
        self._ended = Totals()
        self._lock = threading.Lock()

    @classmethod
    def make(cls, state_dir: Path, kind: str) -> Board:
        """A board for this process; what parents that are gone left behind is removed."""
        root = state_dir / "metrics"
        root.mkdir(parents=True, exist_ok=True)
        for old in root.iterdir():
            pid = old.name.rpartition("-")[2]
            if pid.isdigit() and (int(pid) == os.getpid() or not _lives(int(pid))):
                shutil.rmtree(old, ignore_errors=True)
        directory = root / f"{kind}-{os.getpid()}"
        directory.mkdir(mode=0o700, exist_ok=True)
        return cls(directory)

    # --- in a child -------------------------------------------------------------------

    def publish(self, snapshot: Mapping[str, Any]) -> None:
        """Hang out the numbers of this process. Raises ``OSError``."""
        path = self._directory / f"{os.getpid()}.json"
        new = path.with_suffix(".new")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.write_text(json.dumps({**snapshot, "at": self._clock()}))
        new.replace(path)

    # --- in the parent ----------------------------------------------------------------

    def totals(self) -> Totals:
        """What all children have counted, also those that have ended; gauges of the living."""
        with self._lock:
            return self._totals()

    def _totals(self) -> Totals:
        totals = Totals()
        now = self._clock()
        for path in sorted(self._directory.glob("*.json")):
            lives = _lives(int(path.stem))
            try:
                snapshot = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if lives:
                totals.take(snapshot, gauges=now - snapshot["at"] <= STALE)
            else:
                self._ended.take(snapshot, gauges=False)
                path.unlink(missing_ok=True)
        totals.take(_spelled(self._ended))
        return totals

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


def _spelled(totals: Totals) -> dict[str, Any]:
    return {
        "numbers": [(name, labels, n) for (name, labels), n in totals.numbers.items()],
        "spreads": [(name, labels, s) for (name, labels), s in totals.spreads.items()],
    }


def _lives(pid: int) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
