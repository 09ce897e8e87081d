"""Cron expressions in Celery's syntax: which minutes, hours and days are meant.

Owns the reading of the five fields. As in Celery all of them must hold: a day of the
month *and* a day of the week, where classic cron takes either of the two. Knows no time
zone and no clock: ``schedules.fires`` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_PART = re.compile(
    r"(?:(?P<star>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?", re.ASCII
)
#: name, least, most.
_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 6),
)
_SAMPLE = "write minute, hour, day of the month, month and day of the week, as '0 10 * * sat'"


class CrontabError(ValueError):
    """The expression cannot be read, or names no day that exists; says why."""


@dataclass(frozen=True, slots=True)
class Crontab:
    """The times of a day and the days that an expression names; Sunday is 0."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    def on(self, day: date) -> bool:
        """Whether it fires on a day."""
        return (
            day.month in self.months
            and day.day in self.days
            and day.isoweekday() % 7 in self.weekdays
        )

    def __str__(self) -> str:
        return self.text


def parse_crontab(value: object) -> Crontab:
    """``"0 10 * * sat"``; raises ``CrontabError``."""
    if isinstance(value, Crontab):
        return value
    parts = str(value).split()
    if len(parts) != len(_FIELDS):
        raise CrontabError(f"{value!r} has {len(parts)} fields: {_SAMPLE}")
    minutes, hours, days, months, weekdays = (
        _field(text, *field) for text, field in zip(parts, _FIELDS, strict=True)
    )
    if not any(day <= _LONGEST[month] for month in months for day in days):
        raise CrontabError(f"{value!r} names no day that exists")
    return Crontab(
        " ".join(parts),
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(weekdays),
    )


_LONGEST = {m: 29 if m == 2 else 30 if m in (4, 6, 9, 11) else 31 for m in range(1, 13)}


def _field(text: str, name: str, least: int, most: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        said = _PART.fullmatch(part)
        if said is None or (said["step"] and not (said["star"] or said["last"])):
            raise CrontabError(f"{name} {text!r} is none: write 5, 1-5, */10, 8-18/2 or a list")
        step = int(said["step"] or 1)
        if step < 1:
            raise CrontabError(f"{name} {text!r}: a step is at least 1")
        whole = list(range(least, most + 1))
        if not said["star"]:
            first = _number(said["first"], name, least, most)
            last = first if said["last"] is None else _number(said["last"], name, least, most)
            # fri-mon goes round the end, as Celery has it.
            whole = (
                list(range(first, last + 1))
                if first <= last
                else [*range(first, most + 1), *range(least, last + 1)]
            )
        found |= set(whole[::step])
    return found


def _number(text: str, name: str, least: int, most: int) -> int:
    if text.isdigit():
        number = int(text)
        if not least <= number <= most:
            raise CrontabError(f"{name} {text} must be from {least} to {most}")
        return number
    words = {"month": _MONTHS, "day of the week": _WEEKDAYS}.get(name, ())
    word = text.lower()[:3]
    if word not in words or not _spelled(text.lower(), word):
        raise CrontabError(f"{name} {text!r} is none")
    return words.index(word) + least


def _spelled(text: str, word: str) -> bool:
    """``sat`` and ``saturday``, and nothing in between."""
    return text in (word, _WHOLE[word])


_WHOLE = {
    **{w[:3]: w for w in ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday")},
    "sat": "saturday",
    **{
        w[:3]: w
        for w in (
            *("january", "february", "march", "april", "may", "june", "july"),
            *("august", "september", "october", "november", "december"),
        )
    },
}
