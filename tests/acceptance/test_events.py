"""What producers are told by real processes, over a kill just where it hurts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.conftest import Setting
from tests.acceptance.stage import mails, until
from tests.integration.events.listeners import expected, first_of_each, listen

#: Of the mails of ``several_ends``: where each ends.
ENDS = {"bounce": "bounced", "fail": "failed", "defer": "sent", "uncertain": "sent"}


def several_ends(count: int) -> list[dict[str, Any]]:
    out = mails(count, producer="shop")
    for end in ENDS:
        out.append(
            {"to": f"{end}+x@simulate.mailgate.test", "subject": "S", "text": "T"}
            | {"producer": "shop", "idempotency_key": end, "metadata": {"end": end}}
        )
    return out


@pytest.mark.parametrize(("broker", "journal"), [("valkey", "sqlite"), ("rabbitmq", "postgresql")])
def test_a_publisher_that_is_killed_before_it_writes_down_what_it_sent_loses_no_event(
    broker: str, journal: str, stage: Setting
) -> None:
    scene = stage(broker, journal, settings={"streams.transactional.retry.first": "1s"})
    ear = listen(scene.broker, "shop")
    scene.arm("events.before_mark=kill@2")
    scene.keep(scene.intake)
    scene.worker(2)
    scene.publish(several_ends(60))
    scene.publish([several_ends(0)[0] | {"subject": "Another"}])
    scene.wait_finished(64)

    def told() -> bool:
        waits = "SELECT count(*) FROM events WHERE id > (SELECT reached FROM outbox)"
        conflict = "SELECT count(*) FROM parked"
        return scene.journal.one(conflict) == 1 and scene.journal.one(waits) == 0

    until(told, 30, scene.logs)
    assert [name for name, _ in scene.fired()] == ["events.before_mark"]
    heard = ear.heard("shop")
    written = scene.journal.rows("SELECT * FROM events ORDER BY id")
    assert first_of_each(heard) == expected(written)
    assert len(heard) > len({one["id"] for one in heard}), "the kill came too early to repeat one"
    last = {
        one["message"]["metadata"]["end"]: one["event"]
        for one in sorted(heard, key=_seq)
        if "metadata" in one["message"] and "recipient" in one
    }
    assert last == ENDS
    assert [one["event"] for one in heard].count("conflict") >= 1


def _seq(event: dict[str, Any]) -> int:
    return int(event["seq"])
