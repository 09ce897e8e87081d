"""When a schedule fires: pure functions of expression, zone and time.

Owns what summer time means for it, and what is made up for after an outage. A time that
the clocks skip fires when they have skipped it; one that they show twice fires the first
time. Never reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from mailgate.config.crontab import Crontab
from mailgate.config.schedules import CatchUp

#: A fire that is no older is on time (ms): beat was restarted, or looked late.
ON_TIME = 300_000
#: Nobody looks further than this (days): 29 February on one day of the week is 40 years.
_FAR = 41 * 366
_DAY = timedelta(days=1)


def following(cron: Crontab, zone: ZoneInfo, after: int) -> int | None:
    """The first fire after a time (ms); None when there is none in decades."""
    return next((at for at in _walk(cron, zone, after, 1) if at > after), None)


def previous(cron: Crontab, zone: ZoneInfo, before: int) -> int | None:
    """The last fire before a time (ms)."""
    return next((at for at in _walk(cron, zone, before, -1) if at < before), None)


def due(
    cron: Crontab, zone: ZoneInfo, last: int, now: int, policy: CatchUp, within: int, most: int
) -> Sequence[int]:
    """What fires now, oldest first: of all the times in (``last``, ``now``] (ms).

    What is older than ``ON_TIME`` was missed. ``none`` lets it be; ``latest`` has one fire
    for all of them; ``all`` has each, the ``most`` latest. Nothing older than ``within``
    (ms) is made up for.
    """
    oldest = now - (ON_TIME if policy == "none" else max(within, ON_TIME))
    since = max(last, oldest)
    back = (at for at in _walk(cron, zone, now, -1) if at <= now)
    found = []
    for at in islice(back, most if policy == "all" else 1):
        if at <= since:
            break
        found.append(at)
    return found[::-1]


def _walk(cron: Crontab, zone: ZoneInfo, start: int, step: int) -> Iterator[int]:
    """The fires from about ``start`` on, each once, in the order of time or against it."""
    day = datetime.fromtimestamp(start / 1000, UTC).date() - 2 * step * _DAY
    last: int | None = None
    pending: list[int] = []
    for _ in range(_FAR):
        if cron.on(day):
            pending += _instants(cron, zone, datetime.combine(day, time()))
            pending = sorted(set(pending), reverse=step < 0)
        # Zones are at most a day apart from their date, a change of the clock included.
        edge = datetime.combine(day, time(), UTC) - step * _DAY
        bound = int(edge.timestamp() * 1000)
        while pending and (pending[0] - bound) * step < 0:
            at = pending.pop(0)
            if last is None or (at - last) * step > 0:
                yield at
                last = at
        day += step * _DAY


def _instants(cron: Crontab, zone: ZoneInfo, midnight: datetime) -> list[int]:
    """The times of one day, in UTC.

    A time that does not exist is taken by the clock from before the change (PEP 495, fold
    0), which shows it when the new one shows an hour more.
    """
    return [
        int(midnight.replace(hour=hour, minute=minute, tzinfo=zone).timestamp() * 1000)
        for hour in cron.hours
        for minute in cron.minutes
    ]
