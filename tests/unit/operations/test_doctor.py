"""What the doctor judges, and that nothing which hangs holds it up."""

from __future__ import annotations

import threading
import time

import pytest

from mailgate.intake.look import RabbitLook
from mailgate.journal.look import JournalLook, Population, Untold
from mailgate.limits.look import RedisLook
from mailgate.operations import verdicts
from mailgate.operations.doctor import run
from mailgate.operations.verdicts import Finding, Level, good

WELL = {
    "program": "Valkey",
    "version": "9.1.2",
    "policy": "noeviction",
    "keeps": True,
    "keeps_badly": False,
    "replica": False,
    "memory": 1,
    "most": 0,
    "ahead": 0.0,
}


def levels(findings: list[Finding]) -> list[Level]:
    assert all(f.advice for f in findings if f.level is not Level.OK), "each says what to do"
    return sorted({f.level for f in findings} - {Level.OK})


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ({}, []),
        ({"policy": "allkeys-lru"}, [Level.FAULT]),
        ({"keeps": False}, [Level.WARN]),
        ({"keeps_badly": True}, [Level.FAULT]),
        ({"replica": True}, [Level.FAULT]),
        ({"program": "Redis", "version": "6.0.16"}, [Level.FAULT]),
        ({"program": "Redis", "version": "6.2.0"}, []),
        ({"memory": 95, "most": 100}, [Level.WARN]),
        ({"silent": 1}, [Level.WARN]),
    ],
)
def test_a_redis_that_may_lose_mail(change, level):
    found = verdicts.redis("broker", "redis://there", RedisLook(**{**WELL, **change}))
    assert levels(found) == level


def test_a_store_of_permits_need_not_keep_them():
    seen = RedisLook(**{**WELL, "keeps": False})
    assert levels(verdicts.redis("limiter", "redis://there", seen)) == []


@pytest.mark.parametrize(
    ("kind", "level"),
    [("quorum", []), ("", []), ("other", [Level.WARN]), ("unknown", [Level.WARN])],
)
def test_the_kind_of_the_inbox_queue(kind, level):
    assert levels(verdicts.rabbitmq("amqp://there", "q", RabbitLook("4.1.2", kind, 0))) == level
    assert Level.WARN in levels(verdicts.rabbitmq("amqp://there", "q", RabbitLook("3.8", kind, 0)))


def test_a_journal_that_is_behind_or_unsafe_or_read_only():
    well = {"program": "PostgreSQL", "version": "18.1", "latest": "0002"}
    assert levels(verdicts.journal("x", JournalLook(**well))) == []
    for change in ({"behind": "0001"}, {"unsafe": ("fsync is off",)}, {"unwritable": "standby"}):
        assert levels(verdicts.journal("x", JournalLook(**well, **change))) == [Level.FAULT]


@pytest.mark.parametrize(
    ("ahead", "level"),
    [(0.4, Level.OK), (-0.4, Level.OK), (5, Level.WARN), (-5, Level.WARN), (90, Level.FAULT)],
)
def test_clocks_that_differ(ahead, level):
    assert verdicts.clock("the journal's clock", ahead).level is level


@pytest.mark.parametrize(
    ("free", "level"), [(50e9, Level.OK), (1e9, Level.WARN), (100e6, Level.FAULT)]
)
def test_a_disk_that_fills(free, level):
    assert verdicts.disk("/var/lib/mailgate", int(free)).level is level


@pytest.mark.parametrize(
    ("alive", "silent", "level"),
    [(2, 0, []), (2, 1, [Level.WARN]), (0, 0, [Level.WARN]), (0, 3, [Level.FAULT])],
)
def test_workers_that_live_and_that_died(alive, silent, level):
    assert levels(verdicts.people(Population(alive, silent, 0))) == level


def test_a_clean_up_that_is_overdue_tells_that_beat_does_not_run():
    assert levels(verdicts.people(Population(1, 0, 0, unclean=3600.0))) == []
    assert levels(verdicts.people(Population(1, 0, 0, unclean=4 * 3600.0))) == [Level.WARN]


@pytest.mark.parametrize(
    ("seen", "level"),
    [
        (Untold(0, 0.0, ()), []),
        (Untold(500, 30.0, ()), []),
        (Untold(500, 300.0, ()), [Level.WARN]),
        (Untold(0, 0.0, ("shop", "news")), [Level.WARN]),
    ],
)
def test_producers_that_are_not_told(seen, level):
    assert levels(verdicts.events(seen, "amqp://there")) == level


def test_parked_documents_wait_for_a_person():
    assert levels(verdicts.people(Population(1, 0, 7))) == [Level.WARN]


def test_a_library_that_is_too_old_is_named_with_the_command():
    requires = ["aiosmtplib==5.1.3", "lxml>=6.1", 'tzdata>=1; python_version < "3"', "not a line!"]
    found = verdicts.versions(requires, {"aiosmtplib": "5.0.0", "lxml": "6.1.3", "tzdata": "0"})
    [wrong] = [f for f in found if f.level is Level.FAULT]
    assert wrong.advice == 'pip install "aiosmtplib==5.1.3"'


def test_what_hangs_or_breaks_delays_and_hides_nothing():
    never = threading.Event()

    def broken() -> list[Finding]:
        raise RuntimeError("redis://u:geheim@h")

    begun = time.monotonic()
    report = run(
        {
            "hangs": lambda: [good("hangs", str(never.wait(30)))],
            "breaks": broken,
            "well": lambda: [good("well", "ann@example.com at redis://u:geheim@h")],
        },
        0.2,
    )
    assert time.monotonic() - begun < 5
    never.set()
    assert [f.level for f in report.findings] == [Level.FAULT, Level.FAULT, Level.OK]
    assert report.hung == ("hangs",)
    assert report.findings[0].found == "no answer in 0.2 s"
    assert "geheim" not in repr(report)
    assert "ann@" not in repr(report)
