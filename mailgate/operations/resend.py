"""Sending failures again, and cancelling what waits.

Owns the chunks, the audit and the rings that follow. A change of many needs a
filter that says more than a state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mailgate.journal.database import Connection, Database
from mailgate.journal.search import Filter, ids
from mailgate.journal.surgery import Act, Moved, Surgery
from mailgate.model.state import Lane, State

#: Recipients moved in one transaction.
CHUNK = 500


def move_all(
    database: Database,
    wanted: Filter,
    target: State,
    act: Act,
    ring: Callable[[Lane], None],
    *,
    limit: int | None = None,
) -> Iterator[int]:
    """Move every recipient that ``wanted`` finds, chunk by chunk; yields how many each time.

    Each is looked at once: what fails again while this goes on is not sent again and
    again. Interrupted, what is done is done, and the same call goes on where it
    stopped. Raises ``JournalAway``.
    """
    surgery = Surgery(database)
    left = limit
    last = 0
    while left is None or left > 0:
        most = CHUNK if left is None else min(CHUNK, left)

        def work(connection: Connection, most: int = most, last: int = last) -> tuple[int, Moved]:
            found = ids(connection, wanted, most, last)
            return (found[-1] if found else 0), surgery.move(connection, found, target, act)

        last, moved = database.run_now(work)
        if not last:
            return
        if target is State.QUEUED:
            for lane in moved.lanes:
                ring(lane)
        if left is not None:
            left -= len(moved.recipient_ids)
        yield len(moved.recipient_ids)
