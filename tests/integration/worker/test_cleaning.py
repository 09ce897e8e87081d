"""The clean-up that beat has a worker do."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery

from mailgate.config.shape import Config
from mailgate.journal import schema
from mailgate.worker.cleaning import clean_up
from mailgate.worker.settings import CLEAN, celery_settings
from tests.contract.journal.rig import Rig

HUNDRED_DAYS = 100 * 86_400_000


def test_a_worker_deletes_what_is_kept_no_longer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    schema.upgrade(url)
    rig = Rig(url)
    rig.add(2)
    rig.sql(
        "UPDATE recipients SET state = 'sent', message_id = message_id - :shift,"
        " changed_at = changed_at - :ms WHERE id = (SELECT min(id) FROM recipients)",
        shift=HUNDRED_DAYS << 21,
        ms=HUNDRED_DAYS,
    )
    rig.sql(
        "UPDATE messages SET id = id - :shift WHERE id = (SELECT min(id) FROM messages)",
        shift=HUNDRED_DAYS << 21,
    )
    config = Config.model_validate({"journal": {"url": url}})
    assert clean_up(config, 5)["messages"] == 1
    assert rig.count("messages") == rig.count("recipients") == 1
    rig.close()


def test_a_journal_that_is_away_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config.model_validate({"journal": {"url": "postgresql://127.0.0.1:1/none"}})
    assert clean_up(config, 1) == {}
    assert "the journal is away" in caplog.text


def test_beat_asks_each_hour() -> None:
    config = Config.model_validate({"broker": {"url": "redis://127.0.0.1:1/0"}})
    with Celery("clock", set_as_current=False) as app:
        app.add_defaults(lambda: celery_settings(config))
        [entry] = app.conf.beat_schedule.values()
    assert entry["task"] == CLEAN
    assert entry["schedule"].minute == {17}
    assert entry["options"]["expires"] == 3600
