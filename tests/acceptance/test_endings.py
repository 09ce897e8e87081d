"""What relays answer: deferral, bounces, the dot without an answer."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from tests.acceptance.conftest import Setting
from tests.acceptance.stage import Copy, Stage, mails

RETRY = {
    "streams.transactional.retry.first": "1s",
    "streams.transactional.retry.factor": "2",
    "streams.transactional.retry.jitter": "0",
    "streams.transactional.retry.cap": "2s",
    "streams.bulk.retry.first": "1s",
    "streams.bulk.uncertain": "hold",
    # Five of each trouble in a row would open a breaker, and the schedule is what counts here.
    "breakers.relay.failures": "100",
    "breakers.domain.failures": "100",
}
PLANS = {
    "soft": ["451 4.4.1 No route now", "451 4.4.1 No route now", "250"],
    "grey": ["451 4.7.1 Greylisted", "250"],
    "dotsoft": ["dot 452 4.3.1 Out of space", "250"],
    "hard": ["550 5.1.1 No such user"],
    "cut": ["drop", "250"],
}


def story(scene: Stage, recipient: str) -> dict[str, Any]:
    [found] = scene.json("messages", "list", "--recipient", recipient)["items"]
    told: dict[str, Any] = scene.json("messages", "show", found["id"])
    return told


def copies(scene: Stage, recipient: str) -> list[Copy]:
    return [c for c in scene.relay.book() if c.recipient == recipient]


def waits(scene: Stage, recipient: str) -> list[float]:
    """Seconds between the attempts, by the relay's clock."""
    times = [c.mail_at / 1e9 for c in copies(scene, recipient)]
    return [later - earlier for earlier, later in pairwise(times)]


def test_every_answer_of_a_relay_becomes_the_right_state_schedule_and_record(
    stage: Setting, figure: Any
) -> None:
    scene = stage("rabbitmq", "sqlite", settings=RETRY, plans=PLANS)
    scene.intake()
    scene.worker(2)
    scene.wait_for_workers(2)
    scene.publish(
        [
            *mails(5, to="soft"),
            *mails(5, to="grey"),
            *mails(5, to="dotsoft"),
            *mails(5, to="hard"),
            *mails(5, to="cut"),
            *mails(5, to="cut", domain="hold.example", stream="bulk"),
            *mails(50),
        ]
    )
    scene.wait_finished(80, 30)
    states = scene.journal.states()
    assert states == {"sent": 70, "bounced": 5, "uncertain": 5}

    # 451 twice, then 250: one second and two seconds apart, by the schedule.
    told = story(scene, "soft+2@example.com")
    [person] = told["recipients"]
    assert (person["state"], person["attempts"]) == ("sent", 3)
    assert [(a["code"], a["enhanced"], a["phase"]) for a in told["attempts"]] == [
        (451, "4.4.1", "rcpt"),
        (451, "4.4.1", "rcpt"),
        (250, "2.0.0", "dot"),
    ]
    assert told["attempts"][0]["reply"] == "4.4.1 No route now"
    assert [e["event"] for e in told["events"]] == ["accepted", "deferred", "deferred", "sent"]
    gaps = waits(scene, "soft+2@example.com")
    # Greylisting asks for minutes, and gets no more than the schedule's cap.
    gaps += waits(scene, "grey+2@example.com")
    figure(waits=[round(gap, 2) for gap in gaps])
    for gap, due in zip(gaps, (1.0, 2.0, 2.0), strict=True):
        assert due <= gap < due + 1.5

    # Refused at the dot, the same bytes come again: Message-ID, Date, boundaries.
    first, second = copies(scene, "dotsoft+1@example.com")
    assert (first.answer, second.answer) == ("452 4.3.1 Out of space", "250")
    assert first.message_id
    assert (first.message_id, first.date) == (second.message_id, second.date)
    assert first.digest == second.digest

    # 550: once, and final.
    told = story(scene, "hard+0@example.com")
    assert told["recipients"][0]["state"] == "bounced"
    [attempt] = told["attempts"]
    assert (attempt["code"], attempt["reply"]) == (550, "5.1.1 No such user")
    assert len(copies(scene, "hard+0@example.com")) == 1

    # No answer to the dot: uncertain, then again under the same Message-ID …
    told = story(scene, "cut+3@example.com")
    assert [a["result"] for a in told["attempts"]] == ["uncertain", "sent"]
    assert [e["event"] for e in told["events"]] == ["accepted", "uncertain", "queued", "sent"]
    first, second = copies(scene, "cut+3@example.com")
    assert (first.message_id, first.digest) == (second.message_id, second.digest)
    # … or, where the stream says hold, never again by itself.
    told = story(scene, "cut+3@hold.example")
    assert told["recipients"][0]["state"] == "uncertain"
    time.sleep(2.5)
    assert [len(copies(scene, f"cut+{n}@hold.example")) for n in range(5)] == [1] * 5
