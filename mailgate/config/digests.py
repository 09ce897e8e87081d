"""The sections of digests: what is gathered, and when it goes as one mail.

Owns the shape, and when a digest that is open goes. Never gathers anything:
``journal.gathering`` does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, model_validator

from mailgate.config.terms import Duration, Name, Section, refuse

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"(?:(\S+)\s+)?([01]?\d|2[0-3]):([0-5]\d)")
#: Without ``max_wait`` an item waits for so many times ``after`` at most, or for an hour.
_PATIENCE = 6
_HOUR = 3600.0


class Clock(NamedTuple):
    """A time of day, on some days of the week (0 is Monday)."""

    days: frozenset[int]
    hour: int
    minute: int


def parse_clock(text: str) -> Clock:
    """``"08:00"``, ``"sat 10:00"``, ``"mon-fri 17:30"``, ``"mon,thu 9:00"``."""
    found = _CLOCK.fullmatch(text.strip().lower())
    days = set(range(7)) if found and not found[1] else _days(found[1]) if found else None
    if found is None or not days:
        raise ValueError(
            f"{text!r} is no time of a day: write '08:00', 'sat 10:00' or 'mon-fri 17:30'"
        )
    return Clock(frozenset(days), int(found[2]), int(found[3]))


def _days(text: str) -> set[int] | None:
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            return None
        start, end = _DAYS.index(first), _DAYS.index(last or first)
        days |= {day % 7 for day in range(start, end + 1 if end >= start else end + 8)}
    return days


def next_time(clocks: Sequence[Clock], zone: str, after: int) -> int:
    """The first of ``clocks`` that is later than ``after`` (both ms since 1970).

    Each happens once a day by the clocks of ``zone``: a time that a change to summer time
    leaves out comes as much later, one that comes twice counts the first time.
    """
    tz = ZoneInfo(zone)
    today = datetime.fromtimestamp(after / 1000, UTC).astimezone(tz).date()
    found = []
    # From yesterday: a time that was left out may have moved over midnight.
    for offset in range(-1, 9):
        day = today + timedelta(days=offset)
        for clock in clocks:
            if day.weekday() in clock.days:
                at = datetime(day.year, day.month, day.day, clock.hour, clock.minute, tzinfo=tz)
                found.append(int(at.timestamp() * 1000))
    return min(at for at in found if at > after)


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


#: A name in a template's data.
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Order = Annotated[str, Field(pattern=r"^-?[A-Za-z_][A-Za-z0-9_]*$")]


class Digest(Section):
    """Items for one recipient that go as one mail.

    It goes at the times of ``at``; or once nothing was added for ``after``, and at the
    latest ``max_wait`` after its first item; or with ``max_wait`` alone just then.
    """

    template: str = Field("activity_digest", description="What the digest is rendered by.")
    items: Variable = Field(
        "events",
        description="The variable of the template that takes the list of items. What is cut off "
        "is told it in 'more', a number.",
    )
    stream: Name | None = Field(None, description="The stream of the digest and of its items.")
    at: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = Field(
        (), description="Times of day: '08:00', 'sat 10:00', 'mon-fri 17:30', or a list of them."
    )
    time_zone: str = Field("UTC", description="Whose clocks 'at' goes by, such as Europe/Oslo.")
    after: Duration | None = Field(
        None, gt=0, description="It goes once nothing was added for so long."
    )
    max_wait: Duration | None = Field(
        None,
        gt=0,
        description="It goes so long after its first item at the latest. By default six times "
        "after, or 1h without after.",
    )
    cap: int = Field(
        20,
        ge=1,
        le=1000,
        description="Most items that it shows; of the others it says how many there are.",
    )
    order: Order = Field(
        "newest",
        description="newest or oldest first, or by a field of the items ('priority'), or by it "
        "downwards ('-priority').",
    )
    max_items: int = Field(1000, ge=1, le=10_000, description="With so many items it goes at once.")
    data: dict[str, Any] = Field(
        default_factory=dict, description="Further variables of the template."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = []
        for text in self.at:
            try:
                parse_clock(text)
            except ValueError as error:
                faults.append(("at", str(error)))
        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError):
            faults.append(("time_zone", f"'{self.time_zone}' is no time zone such as Europe/Oslo"))
        if self.at and (self.after is not None or self.max_wait is not None):
            faults.append(("at", "cannot go with after or max_wait: it says when"))
        if self.after is not None and self.max_wait is not None and self.max_wait < self.after:
            faults.append(("max_wait", "must not be shorter than after"))
        if self.items in self.data or "more" in self.data:
            faults.append(("data", f"cannot say '{self.items}' or 'more', which mailgate fills"))
        refuse(faults)
        return self

    @property
    def longest(self) -> float:
        """The longest that an item waits where no clock says when (seconds)."""
        if self.max_wait is not None:
            return self.max_wait
        return _HOUR if self.after is None else _PATIENCE * self.after

    def due(self, now: int) -> int:
        """When one goes that is opened now, if nothing is added (ms)."""
        if self.at:
            return next_time([parse_clock(text) for text in self.at], self.time_zone, now)
        wait = self.longest if self.after is None else min(self.after, self.longest)
        return now + int(wait * 1000)


#: Where what a throttle turned away is gathered, unless its rule names another.
THROTTLED = "throttled"


def with_throttled(given: Mapping[str, Any]) -> dict[str, Any]:
    """The digests that a configuration says, and the one that is always there."""
    return {THROTTLED: {}, **given}


def digest_faults(
    digests: Mapping[str, Digest],
    streams: Collection[str],
    named: Mapping[str, str | None],
) -> list[tuple[str, str]]:
    """Names that are none; ``named`` has the digest that each key of a throttle names."""
    faults = []
    for name, digest in digests.items():
        if digest.stream is not None and digest.stream not in streams:
            known = ", ".join(f"'{known}'" for known in streams)
            rule = f"names '{digest.stream}', which is no stream; the streams are: {known}"
            faults.append((f"digests.{name}.stream", rule))
    for key, wanted in named.items():
        if wanted is not None and wanted not in digests:
            known = ", ".join(f"'{known}'" for known in digests)
            faults.append((key, f"names '{wanted}', which is no digest; the digests are: {known}"))
    return faults
