"""What every way to a broker has in common, and how long to wait between tries.

Owns the interface of a way, the exceptions by which it says why it did not work, and
the pauses. Knows no broker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

#: Seconds: the first pause, and the longest.
FIRST, LONGEST = 0.05, 2.0


class Away(Exception):
    """It did not work, and may in a moment or elsewhere: no connection, no confirm, full."""


class Missing(Away):
    """The broker answers, and the queue is not there (yet)."""


class Shut(Exception):
    """It will not work however often we try: wrong password, no permission."""


class Way(Protocol):
    """One broker, or several that answer for each other. Safe in threads and after a fork."""

    def put(self, body: bytes, key: str) -> str:
        """Publish and wait for the broker's word; says where it is.

        Raises ``Away``, ``Missing`` or ``Shut``.
        """
        ...

    async def aput(self, body: bytes, key: str) -> str: ...

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


def pauses(ways: int, random: Callable[[], float] | None = None) -> Iterator[float]:
    """Seconds to wait after each failure; none before another way has been tried too.

    ``random`` gives floats in [0, 1).
    """
    if random is None:
        import random as source

        random = source.random
    longest = FIRST
    while True:
        for _ in range(ways - 1):
            yield 0.0
        # At least half of it, so that a broker that restarts is not asked at once.
        yield longest * (0.5 + random() / 2)
        longest = min(LONGEST, longest * 2)
