"""Writing down what has come due, and telling how schedules stand.

Owns the step from the journal's clock to rows. Never carries a fire out: ``firing`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mailgate.config.schedules import Schedule
from mailgate.config.shape import Config
from mailgate.journal import pauses
from mailgate.journal import schedules as book
from mailgate.journal.database import Connection, Database
from mailgate.schedules.fires import due, following


def come(
    database: Database, config: Config, known: Mapping[str, int | None]
) -> Mapping[str, int | None]:
    """Write down the fires that have come due; gives when each schedule fires next (ms).

    ``known`` is what the call before gave: until then there is nothing to write, so most
    looks touch no row. Raises ``JournalAway``.
    """
    now = database.now()
    over = [n for n in config.schedules if n not in known or (known[n] or now + 1) <= now]
    if not over:
        return known

    def work(connection: Connection) -> None:
        looked = book.looked_at(connection, over, now)
        found = {
            name: _due(config.schedules[name], looked[name], now)
            for name in over
            if looked[name] < now
        }
        book.write(connection, found, now)

    database.run_now(work)
    return {**known, **{name: _following(config.schedules[name], now) for name in over}}


def _due(schedule: Schedule, last: int, now: int) -> list[int]:
    found = due(
        schedule.cron,
        schedule.timezone,
        last,
        now,
        schedule.catch_up,
        int(schedule.catch_up_within * 1000),
        schedule.catch_up_most,
    )
    return list(found)


def _following(schedule: Schedule, after: int) -> int | None:
    return following(schedule.cron, schedule.timezone, after)


def standing(database: Database, config: Config) -> list[dict[str, Any]]:
    """How each schedule stands: its next fire, its last ones, its fault. Times in ms."""
    now = database.now()

    def look(connection: Connection) -> list[dict[str, Any]]:
        paused = {p.name: p for p in pauses.standing(connection) if p.what is pauses.What.SCHEDULE}
        return [
            _item(name, schedule, book.latest(connection, name, 1), now)
            | {"paused": f"{paused[name].who}: {paused[name].reason}" if name in paused else None}
            for name, schedule in config.schedules.items()
        ]

    return database.read_now(look)


def _item(name: str, schedule: Schedule, fires: list[book.Fire], now: int) -> dict[str, Any]:
    last = fires[0] if fires else None
    return {
        "name": name,
        "cron": str(schedule.cron),
        "timezone": schedule.timezone.key,
        "next": _following(schedule, now),
        "last": last.at if last else None,
        "result": last.state if last else None,
        "messages": last.messages if last else 0,
        "recipients": last.recipients if last else 0,
        "error": last.error if last else None,
        "tries": last.tries if last else 0,
        "try_again": last.due_at if last and last.state == "pending" else None,
    }
