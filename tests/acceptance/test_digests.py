"""Digests made by real processes that are killed while they make them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from mailgate.model.ids import spell
from tests.acceptance.conftest import FULL, Setting
from tests.acceptance.stage import until

#: How often each point is a process's death.
TIMES = 5 if FULL else 1
#: Where intake and workers die, and at which time that one comes there.
DEATHS = {
    "digest.before_commit": 1,
    "digest.after_commit": 1,
    "intake.after_commit": 2,
}
LAPS, ITEMS, PEOPLE = (20, 100, 10) if FULL else (1, 90, 6)


@pytest.mark.parametrize(
    ("broker", "journal"),
    [("valkey", "postgresql")] + [("rabbitmq", "sqlite"), ("rabbitmq", "postgresql")] * FULL,
)
def test_each_item_is_in_one_mail_whoever_is_killed_meanwhile(
    broker: str, journal: str, stage: Setting
) -> None:
    settings = {
        "digests.news.after": "100ms",
        "digests.news.max_wait": "300ms",
        "digests.news.cap": "40",
        "intake.batch": "10",
        "streams.transactional.retry.first": "1s",
    }
    scene = stage(broker, journal, settings=settings)
    scene.arm(",".join(f"{name}=kill@{at}*{TIMES}" for name, at in DEATHS.items()))
    scene.keep(scene.intake)
    for _ in range(2):
        scene.keep(lambda: scene.worker(1))
    told: list[str] = []
    for lap in range(LAPS):
        lot = [f"item {lap}-{n}" for n in range(ITEMS)]
        told += lot
        scene.publish(
            [
                {
                    "to": f"p{n % PEOPLE}@example.com",
                    "id": text,
                    "digest": {"name": "news", "id": text},
                    "data": {"text": text},
                }
                for n, text in enumerate(lot)
            ]
        )

        def over(count: int = len(told)) -> bool:
            states = scene.journal.states()
            return states.get("digested", 0) == count and not states.keys() - {"digested", "sent"}

        until(over, 90, lambda: f"{scene.journal.states()}\n{scene.logs()}")
    fired = Counter(name for name, _ in scene.fired())
    assert fired.keys() == DEATHS.keys()

    mails = scene.journal.rows(
        "SELECT m.id, m.body, r.id AS recipient, r.state, (SELECT count(*) FROM attempts a"
        " WHERE a.recipient_id = r.id AND a.kind = 'uncertain') AS uncertain FROM messages m"
        " JOIN recipients r ON r.message_id = m.id WHERE m.metadata LIKE '%digest_key%'"
    )
    shown = [e["text"] for mail in mails for e in json.loads(mail["body"])["data"]["events"]]
    assert Counter(shown) == Counter(told)
    # Every one of these mails arrived, and no other did.
    copies = Counter(copy.message_id for copy in scene.relay.book() if copy.taken)
    known = {f"<{spell(mail['recipient'])}@stage.example>": mail for mail in mails}
    assert copies.keys() == known.keys()
    assert all(copies[id_] <= 1 + mail["uncertain"] for id_, mail in known.items())
