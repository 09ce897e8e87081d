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

    Interrupted, what is done is done, and the same call goes on where it stopped:
    a moved recipient is no longer found.
    """
    surgery = Surgery(database)
    left = limit
    while left is None or left > 0:
        most = CHUNK if left is None else min(CHUNK, left)

        def work(connection: Connection, most: int = most) -> Moved:
            return surgery.move(connection, ids(connection, wanted, most), target, act)

        moved = database.run_now(work)
        if not moved.recipient_ids:
            return
        if target is State.QUEUED:
            for lane in moved.lanes:
                ring(lane)
        if left is not None:
            left -= len(moved.recipient_ids)
        yield len(moved.recipient_ids)
