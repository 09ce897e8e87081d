"""Draining: pause something, and wait until nothing of it is under way.

Owns the order: pause, until every worker has seen it, then the claims that stood at that
moment. What waits stays where it is, or is moved to another lane. Never cuts a
conversation off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from mailgate.journal import draining, pauses
from mailgate.journal.database import Connection, Database
from mailgate.journal.pauses import What
from mailgate.journal.surgery import Act, audit
from mailgate.model.state import Lane

#: Each worker has looked at the pauses after this (``dispatch.take.VIEW`` and a take) (seconds).
SEEN = 2.0
#: How often it is looked whether the last conversation has ended (seconds).
LOOK = 0.5


def ended(
    database: Database,
    what: What,
    name: str,
    *,
    patience: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Yields how many conversations are under way, at last 0; or ends when patience does.

    Begins right after the pause. A conversation with another relay of the same route counts
    for a relay too, while it was open at that moment: it is waited for in vain, never the
    other way round. Raises ``JournalAway``.
    """
    until = clock() + patience
    sleep(min(SEEN, patience))
    claims = database.read_now(lambda c: draining.under_way(c, what, name))
    while True:
        yield len(claims)
        if not claims or clock() >= until:
            return
        sleep(min(LOOK, max(0.0, until - clock())))
        left = claims
        claims = database.read_now(lambda c, left=left: draining.standing(c, database, left))  # type: ignore[misc]


def begin(database: Database, lane: Lane, act: Act) -> bool:
    """Pause a lane; false when it was paused already."""
    now = database.now()
    return database.run_now(lambda c: pauses.begin(c, What.LANE, lane.value, act, now))


def hand_over(database: Database, lane: Lane, to: Lane, act: Act) -> Iterator[int]:
    """Move what waits in ``lane`` to another, in small transactions; yields each one's count.

    Audited with each. Raises ``JournalAway``: what is moved is moved.
    """

    def work(connection: Connection) -> int:
        moved = draining.move(connection, database, lane, to)
        if moved:
            audit(connection, act, moved, database.now())
        return moved

    while moved := database.run_now(work):
        yield moved
