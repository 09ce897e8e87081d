"""Sending messages at another time, as an operator asks for it: audited, and rung for.

Owns the transaction a message. Never says how a message is moved: ``journal.rescheduling`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mailgate.journal.database import Connection, Database
from mailgate.journal.rescheduling import Rescheduling, When
from mailgate.journal.surgery import Act, audit
from mailgate.model.state import Lane

_Result = tuple[str, str | None]


def move(
    database: Database,
    message_ids: Sequence[int],
    when: When,
    act: Act,
    ring: Callable[[Lane], None],
) -> list[_Result]:
    """Reschedule messages; gives for each ``done``, ``too_late``, ``refused`` or ``unknown``,
    and why it was refused. Raises ``JournalAway``; what is done by then is done.
    """
    rescheduling = Rescheduling(database)
    results = []
    for message_id in message_ids:
        result, lanes = database.run_now(
            partial(_moved, database, rescheduling, message_id, when, act)
        )
        for lane in lanes:
            ring(lane)
        results.append(result)
    return results


def _moved(
    database: Database,
    rescheduling: Rescheduling,
    message_id: int,
    when: When,
    act: Act,
    connection: Connection,
) -> tuple[_Result, set[Lane]]:
    found = rescheduling.held(connection, message_id)
    if found is None:
        return ("unknown", None), set()
    message, people = found
    now = database.now()
    result, reason, lanes = rescheduling.reschedule(connection, message, people, when, act, now)
    if result == "done":
        audit(connection, act, len(people), now)
    return (result, reason), lanes
