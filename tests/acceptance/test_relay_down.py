"""A relay dies: the other takes over, the rest waits, and a single mail finds it well again."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.acceptance.conftest import Setting
from tests.acceptance.stage import mails, until
from tests.acceptance.stage.books import reckon
from tests.acceptance.stage.load import recipients
from tests.acceptance.stage.relay import Relay


def test_a_dead_relay_costs_no_attempts_and_comes_back_by_one_probe(
    stage: Setting, figure: Any
) -> None:
    settings = {
        "streams.transactional.relays": '["sink", "backup"]',
        "streams.bulk.relays": '["sink"]',
        "streams.bulk.retry.first": "1s",
        "breakers.relay.first": "2s",
        "breakers.relay.cap": "2s",
        "relays.backup.host": "127.0.0.1",
        "relays.backup.security": "none",
        "worker.conversations": "10",
    }
    scene = stage("valkey", "sqlite", settings=settings)
    backup = Relay(scene.directory / "backup")
    scene.environment["MAILGATE_RELAYS__BACKUP__PORT"] = str(backup.port)
    try:
        scene.intake()
        scene.worker(2)
        before = mails(50, to="before")
        scene.publish(before)
        scene.wait_finished(50)
        assert sum(scene.relay.taken().values()) == 50

        scene.relay.stop()
        over, only = mails(200, to="over"), mails(200, to="only", stream="bulk")
        scene.publish(only + over)
        scene.wait_accepted(450)
        took_over = until(lambda: sum(backup.taken().values()) == 200, 30, scene.logs)

        def state() -> str:
            items = scene.json("relays", "list")["items"]
            return str(next(item["state"] for item in items if item["name"] == "sink"))

        until(lambda: state() in ("open", "half-open"), 10, scene.logs)
        assert scene.journal.states()["sent"] == 250
        attempts = scene.journal.one("SELECT count(*) FROM attempts WHERE relay = 'sink'") - 50
        # Each is one connection that failed: at most those on their way at once, in two processes.
        assert attempts <= 2 * 10

        scene.relay.start()
        back = until(lambda: state() == "closed", 15, scene.logs)
        scene.wait_finished(450, 30)
        taken = Counter(scene.relay.taken()) + Counter(backup.taken())
        account = reckon(scene.journal, taken, recipients(before + over + only))
        figure(seconds_to_take_over=round(took_over, 1), seconds_back=round(back, 1), lost=attempts)
        assert account.clean, account
        assert account.states == {"sent": 450}
    finally:
        backup.stop()
