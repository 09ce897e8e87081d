"""Whether recurring mail goes: the clock's trace, each schedule's sources and its last fire.

Owns what is well and what to do if not, as plain words. Reads sources as a fire would, and
sends and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mailgate.config.shape import Config
from mailgate.journal import schedules as book
from mailgate.journal.database import Database
from mailgate.schedules.fires import previous
from mailgate.schedules.letters import spelled
from mailgate.schedules.reading import ReadingError, read

#: A clock that left no trace for so long (ms) is none.
SILENT = 60_000


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that was seen, and what to do about it."""

    level: Literal["ok", "warn", "fault"]
    found: str
    advice: str = ""


def clock(database: Database) -> Sign:
    """Whether a clock runs somewhere. Raises ``JournalAway``."""
    last = database.read_now(book.last_beat)
    advice = "start mailgate beat: without it no schedule fires, and nothing is cleaned up"
    if last is None:
        return Sign("fault", "no beat was ever seen", advice)
    age = database.now() - last
    if age > SILENT:
        return Sign("fault", f"no beat was seen for {age / 1000:.0f} s", advice)
    return Sign("ok", f"beat was seen {max(0, age) / 1000:.0f} s ago")


def schedule(database: Database, config: Config, name: str) -> list[Sign]:
    """Whether a schedule's sources can be read, and how it went last."""
    section = config.schedules[name]
    now = database.now()
    since = previous(section.cron, section.timezone, now) or now
    out = []
    for key, reading in section.readings:
        try:
            rows = read(reading, config.sources, since, now, section.max_recipients)
        except ReadingError as error:
            advice = "mend it: nothing is sent until it can be read"
            out.append(Sign("fault", f"{key}: {error}", advice))
        else:
            out.append(Sign("ok", f"{key} can be read: {len(rows)} rows since {spelled(since)}"))
    last = next(iter(database.read_now(lambda c: book.latest(c, name, 1))), None)
    if last is not None and last.error and last.state in ("pending", "failed"):
        at = spelled(last.at)
        if last.state == "pending":
            out.append(Sign("warn", f"the fire of {at} is tried again: {last.error}", "mend it"))
        else:
            advice = f"mend it; mailgate schedules run {name} --at {at}"
            out.append(Sign("fault", f"the fire of {at} was given up: {last.error}", advice))
    return out
