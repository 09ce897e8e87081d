"""Whether a process lives, and whether it is ready: named checks, and what they say.

Owns how checks are run and remembered. What is checked is the caller's; a check is a
function that returns nothing, or why it fails.

*Live* asks whether a restart would help, so it never looks at broker, journal or relay.
*Ready* asks whether the process can do its work now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

#: Returns "" when all is well, else a few plain words.
Check = Callable[[], str]


class Remembered:
    """A check that is run at most once in ``seconds``: probes come from many sides."""

    def __init__(
        self, check: Check, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._check = check
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._said = ""
        self._until = float("-inf")

    def __call__(self) -> str:
        with self._lock:
            if self._clock() >= self._until:
                self._said = run(self._check)
                self._until = self._clock() + self._seconds
            return self._said


def run(check: Check) -> str:
    """What a check says; one that raises fails by its error's type alone, whose text may tell."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever keeps it from answering, it fails
        return type(error).__name__


def verdict(checks: Mapping[str, Check]) -> tuple[bool, dict[str, str]]:
    """Whether all hold, and what each says: ``ok``, or why not."""
    said = {name: run(check) for name, check in checks.items()}
    return not any(said.values()), {name: why or "ok" for name, why in said.items()}
