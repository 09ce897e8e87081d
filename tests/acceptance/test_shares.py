"""Who goes first: what is urgent past what is stuck, one producer beside another's flood."""

from __future__ import annotations

import time
from typing import Any

from tests.acceptance.conftest import FULL, Setting
from tests.acceptance.stage import mails, until

#: The messages of the producer that floods.
FLOOD = 100_000 if FULL else 3_000
#: What one worker process takes at most at once.
BATCH = 50


def test_an_urgent_message_passes_bulk_mail_that_a_slow_relay_holds(
    stage: Setting, figure: Any
) -> None:
    """Every place that bulk may have is taken, in the only process and at the relay."""
    scene = stage(
        "valkey",
        "sqlite",
        settings={"worker.conversations": "20"},
        plans={"stuck": ["slow 6"]},
    )
    scene.intake()
    scene.worker(1)
    scene.wait_for_workers(1)
    # The destination has replied a moment ago: it may have any number.
    scene.publish(mails(1, to="soon", stream="codes"))
    until(lambda: len(scene.relay.book()) == 1, 10, scene.logs)
    scene.publish(mails(24, to="stuck", stream="bulk"))
    until(lambda: scene.journal.states().get("sending", 0) >= 18, 20, scene.logs)
    time.sleep(0.5)
    asked = time.time_ns()
    scene.publish(mails(2, to="now", stream="codes"))
    until(lambda: len([c for c in scene.relay.book() if c.taken]) >= 3, 10, scene.logs)
    first = scene.relay.book()[1:3]
    worst = max(c.end_at for c in first) - asked
    figure(seconds=round(worst / 1e9, 2), stuck=scene.journal.states().get("sending"))
    assert {c.recipient.partition("+")[0] for c in first} == {"now"}
    assert worst < 3e9


def test_one_producers_flood_delays_anothers_mail_by_a_few_batches(
    stage: Setting, figure: Any
) -> None:
    scene = stage("valkey", "postgresql", plans={"flood": ["slow 0.05"], "small": ["slow 0.05"]})
    scene.intake()
    scene.worker(1)
    scene.publish(mails(FLOOD, to="flood", producer="flood"))
    scene.wait_accepted(FLOOD, 60 + FLOOD / 200)
    until(lambda: len(scene.relay.taken()) >= 2 * BATCH, 20, scene.logs)
    small = 10
    scene.publish(mails(small, to="small", producer="small"))
    of_small = "SELECT count(*) FROM recipients WHERE email LIKE 'small%' AND state = 'sent'"
    until(lambda: scene.journal.one(of_small) == small, 30, scene.logs)
    accepted = 1e6 * scene.journal.one(
        "SELECT max(accepted_at) FROM messages WHERE producer = 'small'"
    )
    book = scene.relay.book()
    last = max(c.end_at for c in book if c.recipient.startswith("small"))
    between = sum(accepted <= c.end_at <= last for c in book if c.recipient.startswith("flood"))
    left = FLOOD - sum(c.recipient.startswith("flood") for c in book)
    figure(flood=FLOOD, before_the_last=between, seconds=round((last - accepted) / 1e9, 2))
    assert left > 5 * BATCH
    assert between <= 4 * BATCH
