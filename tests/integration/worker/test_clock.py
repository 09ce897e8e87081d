"""The clock in beat: whom it asks, how often, and what it does without journal or broker."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from mailgate.config.shape import Config
from mailgate.journal import schedules as book
from mailgate.journal import schema
from mailgate.schedules.firing import TAKEN
from mailgate.worker import celery_app, chores
from mailgate.worker.clock import Clock, Watch
from mailgate.worker.settings import (
    CHORES,
    FIRE,
    FIRE_HARD,
    FIRE_SOFT,
    celery_settings,
    route,
    time_limits,
)
from tests.contract.journal.rig import Rig

MINUTE = 60_000


def configured(directory: Path, broker: str = "redis://127.0.0.1:1/0") -> Config:
    return Config.model_validate(
        {
            "broker": {"url": broker},
            "journal": {"url": f"sqlite:///{directory / 'journal.db'}"},
            "relays": {"main": {"host": "relay.example"}},
            "streams": {"transactional": {"from": "shop@example.com"}},
            "schedules": {
                "often": {
                    "cron": "* * * * *",
                    "subject": "S",
                    "text": "T",
                    "recipients": ["ann@example.org"],
                }
            },
        }
    )


def missed(rig: Rig) -> None:
    """As if beat had been away for some minutes."""
    rig.sql(
        "INSERT INTO schedules (name, looked_at) VALUES ('often', :at)",
        at=rig.database.now() - 2 * MINUTE,
    )


def test_a_worker_is_asked_once_and_the_fire_is_carried_out(tmp_path: Path) -> None:
    config = configured(tmp_path)
    schema.upgrade(config.journal.url or "")
    rig, rung = Rig(config.journal.url or ""), []
    missed(rig)
    watch = Watch(config)
    [(name, at)] = watch.look()
    assert watch.look() == []  # it was asked just now
    watch.forget(name, at)
    assert watch.look() == [(name, at)]
    assert rig.database.read_now(book.last_beat) is not None
    done = chores.fire(config, name, at, rung.append)
    assert done == {"messages": 1, "recipients": 1}
    assert len(rung) == 1
    assert chores.fire(config, name, at, rung.append) == {"messages": 0, "recipients": 0}
    watch.forget(name, at)
    assert watch.look() == []
    rig.close()


def test_without_a_journal_the_clock_goes_on_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    config = configured(tmp_path / "not there")
    watch = Watch(config)
    assert watch.look() == watch.look() == []
    assert caplog.text.count("nothing fires") == 1
    (tmp_path / "not there").mkdir()
    schema.upgrade(config.journal.url or "")
    rig = Rig(config.journal.url or "")
    missed(rig)
    assert len(watch.look()) == 1
    assert caplog.text.count("the journal is back") == 1
    assert chores.fire(configured(tmp_path / "nowhere"), "often", 1, print) == {}
    rig.close()


def test_without_a_broker_the_clock_goes_on_and_asks_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path, "amqp://127.0.0.1:1//")
    schema.upgrade(config.journal.url or "")
    rig = Rig(config.journal.url or "")
    missed(rig)
    monkeypatch.setattr(celery_app, "config", lambda: config)
    with Celery("clock", set_as_current=False) as app:
        app.add_defaults(lambda: celery_settings(config))
        app.conf.beat_schedule = {}
        # kombu would try by itself for six seconds.
        app.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0}
        clock: Any = Clock(app=app)
        assert clock.tick() <= 1.0
        assert clock.tick() <= 1.0
        clock.close()
    assert caplog.text.count("no worker can be asked to fire") == 2
    rig.close()


def test_a_fire_is_a_chore_that_ends_before_another_may_have_it() -> None:
    assert route(FIRE, ("often", 1), {}, {}) == {"queue": CHORES}
    task: Any = celery_app.app.tasks[FIRE]
    assert (task.soft_time_limit, task.time_limit) == (FIRE_SOFT, FIRE_HARD)
    assert FIRE_SOFT < FIRE_HARD < TAKEN / 1000
    assert time_limits(0.1).visibility > FIRE_HARD
