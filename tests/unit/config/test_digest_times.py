"""When a digest goes, by the clocks of its time zone."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mailgate.config.digests import Digest, next_time, parse_clock

OSLO = "Europe/Oslo"


def ms(text: str, zone: str = OSLO) -> int:
    at = datetime.fromisoformat(text)
    return int((at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))).timestamp() * 1000)


@pytest.mark.parametrize(
    ("clock", "after", "goes"),
    [
        ("08:00", "2026-05-06T07:59", "2026-05-06T08:00"),
        ("08:00", "2026-05-06T08:00", "2026-05-07T08:00"),
        ("sat 10:00", "2026-05-06T12:00", "2026-05-09T10:00"),
        ("mon-fri 17:30", "2026-05-08T17:30", "2026-05-11T17:30"),
        ("sat-mon 9:05", "2026-05-06T12:00", "2026-05-09T09:05"),
        ("mon,thu 00:00", "2026-05-06T12:00", "2026-05-07T00:00"),
        # Summer time begins at 02:00: half past two comes as much later, that day and once.
        ("02:30", "2026-03-29T00:00", "2026-03-29T03:30+02:00"),
        ("02:30", "2026-03-29T03:30+02:00", "2026-03-30T02:30"),
        # It ends at 03:00: half past two comes twice and counts once.
        ("02:30", "2026-10-25T00:00", "2026-10-25T02:30+02:00"),
        ("02:30", "2026-10-25T02:30+02:00", "2026-10-26T02:30"),
    ],
)
def test_a_clock_names_the_next_moment(clock: str, after: str, goes: str) -> None:
    assert next_time([parse_clock(clock)], OSLO, ms(after)) == ms(goes)


@given(
    st.integers(ms("2026-01-01"), ms("2029-01-01")),
    st.sampled_from(["Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    st.tuples(st.integers(0, 23), st.integers(0, 59)),
)
def test_a_time_of_day_comes_once_a_day_in_every_zone(
    start: int, zone: str, time: tuple[int, int]
) -> None:
    clock = parse_clock(f"{time[0]:02}:{time[1]:02}")
    found = [start]
    for _ in range(4):
        found.append(next_time([clock], zone, found[-1]))
    assert all(22 <= (b - a) / 3_600_000 <= 26 for a, b in pairwise(found[1:]))
    assert 0 < found[1] - found[0] <= 25 * 3_600_000


def test_after_and_max_wait_say_when_it_goes() -> None:
    assert Digest(after="10m").due(0) == 600_000
    assert Digest(after="10m").longest == 3600.0
    assert Digest(max_wait="5m").due(0) == 300_000
    assert Digest().due(0) == 3_600_000


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"at": "25:00"}, "at"),
        ({"at": "someday 10:00"}, "at"),
        ({"at": "08:00", "after": "1h"}, "at"),
        ({"after": "1h", "max_wait": "1m"}, "max_wait"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"data": {"more": 1}}, "data"),
    ],
)
def test_what_contradicts_itself_is_refused_by_its_key(said: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Digest.model_validate(said)
    [error] = refused.value.errors()
    assert error["ctx"]["faults"][0][0] == fault
