"""When schedules fire: every time once, in every zone, whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab_parser
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mailgate.config.crontab import CrontabError, parse_crontab
from mailgate.config.schedules import CatchUp
from mailgate.schedules.fires import ON_TIME, due, following, previous

PARIS = ZoneInfo("Europe/Paris")
#: A whole hour, half an hour (Lord Howe), a day that is not there (Apia), no change, west.
ZONES = ("Europe/Paris", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kolkata", "America/St_Johns")
WEEK = 7 * 86_400_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def local(at: int | None, zone: ZoneInfo = PARIS) -> str:
    assert at is not None
    return datetime.fromtimestamp(at / 1000, zone).isoformat(timespec="minutes")


def fired(cron: str, zone: ZoneInfo, since: str, until: str) -> list[str]:
    found = due(parse_crontab(cron), zone, ms(since), ms(until), "all", 10**12, 10_000)
    return [local(at, zone) for at in found]


# --- the expression ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *",
        "*/15 8-18/2 1,15 jan-mar,12 mon-fri",
        "0 10 * * sat",
        "5 4 * * saturday",
        "0 22-3 * * fri-mon",
        "0 0 29 2 *",
    ],
)
def test_it_reads_as_celery_reads(text: str) -> None:
    cron = parse_crontab(text)
    minute, hour, day, month, weekday = text.split()
    assert set(cron.minutes) == crontab_parser(60).parse(minute)
    assert set(cron.hours) == crontab_parser(24).parse(hour)
    assert cron.days == crontab_parser(31, 1).parse(day)
    assert cron.months == crontab_parser(12, 1).parse(month)
    assert cron.weekdays == crontab_parser(7).parse(weekday)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0 10 * *", "has 4 fields"),
        ("60 * * * *", "minute 60 must be from 0 to 59"),
        ("* 24 * * *", "hour 24 must be"),
        ("* * 0 * *", "day of the month 0 must be"),
        ("* * * 13 *", "month 13 must be"),
        ("* * * * 7", "day of the week 7 must be"),
        ("* * * * satisfied", "day of the week 'satisfied' is none"),
        ("*/0 * * * *", "a step is at least 1"),
        ("5/10 * * * *", "minute '5/10' is none"),
        ("1, * * * *", "minute '1,' is none"),
        ("-1 * * * *", "minute '-1' is none"),
        ("mon * * * *", "minute 'mon' is none"),
        ("0 0 31 2,4 *", "names no day that exists"),
        ("", "has 0 fields"),
    ],
)
def test_what_is_no_expression_is_said(text: str, why: str) -> None:
    with pytest.raises(CrontabError) as caught:
        parse_crontab(text)
    assert why in str(caught.value)


def test_day_of_the_month_and_of_the_week_must_both_hold() -> None:
    assert fired("0 9 13 * fri", PARIS, "2026-01-01T00:00Z", "2026-12-31T00:00Z") == [
        *("2026-02-13T09:00+01:00", "2026-03-13T09:00+01:00", "2026-11-13T09:00+01:00"),
    ]


# --- the clocks change -------------------------------------------------------------------


def test_ten_on_saturday_is_ten_in_summer_and_in_winter() -> None:
    assert fired("0 10 * * sat", PARIS, "2026-03-20T00:00Z", "2026-04-05T00:00Z") == [
        *("2026-03-21T10:00+01:00", "2026-03-28T10:00+01:00", "2026-04-04T10:00+02:00"),
    ]


def test_a_time_that_the_clocks_skip_fires_once_when_they_have_skipped_it() -> None:
    assert fired("30 2 * * *", PARIS, "2026-03-28T00:00Z", "2026-03-31T00:00Z") == [
        *("2026-03-28T02:30+01:00", "2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"),
    ]
    # Together with what is there anyway: once.
    quarter = fired("30 2-3 * * *", PARIS, "2026-03-29T00:00Z", "2026-03-29T12:00Z")
    assert quarter == ["2026-03-29T03:30+02:00"]


def test_a_time_that_is_there_twice_fires_the_first_time() -> None:
    assert fired("30 2 * * *", PARIS, "2026-10-24T00:00Z", "2026-10-27T00:00Z") == [
        *("2026-10-24T02:30+02:00", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),
    ]


def test_a_day_that_is_not_there_fires_a_day_later() -> None:
    apia = ZoneInfo("Pacific/Apia")  # went from 29 to 31 December 2011
    assert fired("0 9 30 12 *", apia, "2011-12-28T00:00Z", "2012-01-02T00:00Z") == [
        "2011-12-31T09:00+14:00"
    ]


def test_29_february_on_a_weekday_is_found_or_not() -> None:
    found = following(parse_crontab("0 0 29 2 mon"), PARIS, ms("2026-01-01T00:00Z"))
    assert local(found) == "2044-02-29T00:00+01:00"


_PARTS = [
    st.sampled_from(["0", "30", "*/20", "59", "5,35"]),
    st.sampled_from(["0", "2", "1-3", "*", "23", "*/5"]),
    st.sampled_from(["*", "1", "28-31", "13"]),
    st.sampled_from(["*", "3,10", "12", "4"]),
    st.sampled_from(["*", "sat", "sun", "mon-fri"]),
]
EXPRESSIONS = st.tuples(*_PARTS).map(" ".join)
TIMES = st.integers(ms("2010-01-01T00:00Z"), ms("2035-01-01T00:00Z"))


@given(EXPRESSIONS, st.sampled_from(ZONES), TIMES, st.integers(1, 40 * 86_400))
@settings(max_examples=60)
def test_each_time_fires_once_and_none_is_left_out(
    text: str, key: str, start: int, seconds: int
) -> None:
    """Against every minute of the clock on the wall, one by one."""
    cron, zone = parse_crontab(text), ZoneInfo(key)
    end = start + seconds * 1000
    found = list(due(cron, zone, start, end, "all", 10**12, 10**6))
    assert found == sorted(set(found))
    assert all(start < at <= end for at in found)
    wanted: set[int] = set()
    naive = datetime.fromtimestamp(start / 1000, UTC).replace(tzinfo=None, second=0, microsecond=0)
    naive -= timedelta(days=2)
    hours = set(cron.hours)
    while naive.replace(tzinfo=UTC) < datetime.fromtimestamp(end / 1000, UTC) + timedelta(days=2):
        if not (cron.on(naive.date()) and naive.hour in hours):
            naive = (naive + timedelta(hours=1)).replace(minute=0)
            continue
        if naive.minute in cron.minutes:
            at = int(naive.replace(tzinfo=zone).timestamp() * 1000)
            if start < at <= end:
                wanted.add(at)
        naive += timedelta(minutes=1)
    assert found == sorted(wanted)


@given(EXPRESSIONS, st.sampled_from(ZONES), TIMES)
@settings(max_examples=60)
def test_following_and_previous_meet(text: str, key: str, at: int) -> None:
    cron, zone = parse_crontab(text), ZoneInfo(key)
    after = following(cron, zone, at)
    assume(after is not None)
    assert after is not None
    assert after > at
    before = previous(cron, zone, after)
    assert before is not None
    assert before <= at  # nothing lies between
    assert following(cron, zone, before) in (after, at)


# --- after an outage ---------------------------------------------------------------------

DAILY = parse_crontab("0 9 * * *")
NOON = ms("2026-05-10T12:00Z")


@pytest.mark.parametrize(
    ("policy", "options", "days"),
    [
        ("latest", {}, [10]),
        ("none", {}, []),
        ("all", {}, [4, 5, 6, 7, 8, 9, 10]),
        ("all", {"most": 2}, [9, 10]),
        ("all", {"within": 2 * 86_400_000}, [9, 10]),
        ("latest", {"within": 3_600_000}, []),
    ],
)
def test_what_is_made_up_for(policy: CatchUp, options: dict[str, Any], days: list[int]) -> None:
    said = {"within": WEEK, "most": 24, **options}
    found = due(DAILY, ZoneInfo("UTC"), NOON - 30 * 86_400_000, NOON, policy, **said)
    assert [datetime.fromtimestamp(at / 1000, UTC).day for at in found] == days


@pytest.mark.parametrize("policy", ["latest", "all", "none"])
def test_what_is_on_time_fires_by_every_policy(policy: CatchUp) -> None:
    nine = ms("2026-05-10T09:00Z")
    for late in (0, 500, ON_TIME - 1):
        assert due(DAILY, ZoneInfo("UTC"), nine - 1, nine + late, policy, 0, 1) == [nine]
    # What was written down is not due again.
    assert due(DAILY, ZoneInfo("UTC"), nine, nine + 500, policy, WEEK, 24) == []
