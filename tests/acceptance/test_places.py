"""Connections and conversations at once, over two worker processes, as the relay counts them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.conftest import FULL, Setting
from tests.acceptance.stage import mails
from tests.acceptance.stage.relay import most_at_once

COUNT = 400 if FULL else 60


PAIRS = [("rabbitmq", "postgresql"), ("valkey", "sqlite")]


@pytest.mark.parametrize(("broker", "journal"), PAIRS if FULL else PAIRS[:1])
def test_a_relay_sees_no_more_connections_and_a_destination_no_more_conversations(
    broker: str, journal: str, stage: Setting, figure: Any
) -> None:
    settings = {
        "relays.sink.max_connections_total": "5",
        "limits.domain": '{"slow.example" = {max_connections = 2}}',
        "limiter.url": "journal",
    }
    plans = {"slow": ["slow 0.1"], "other": ["slow 0.02"]}
    scene = stage(broker, journal, settings=settings, plans=plans)
    scene.intake()
    for _ in range(2):
        scene.worker(1)
    scene.wait_for_workers(2)
    slow = mails(COUNT // 2, to="slow", domain="slow.example")
    other = mails(COUNT * 4, to="other")
    scene.publish([m for pair in zip(slow, other, strict=False) for m in pair] + other[len(slow) :])
    scene.wait_finished(len(slow) + len(other), 60)
    book = scene.relay.book()
    there = most_at_once(c for c in book if c.recipient.endswith("@slow.example"))
    connections = scene.relay.most_connections()
    span = (max(c.end_at for c in book) - min(c.mail_at for c in book)) / 1e9
    figure(broker=broker, conversations=there, connections=connections, seconds=round(span, 1))
    assert there == 2
    assert connections <= 5
    assert len({c.peer for c in book}) > 1
    assert max(scene.relay.taken().values()) == 1
    # Places are used: two at a tenth of a second each.
    assert span < 2.5 * (len(slow) * 0.1 / 2 + 2)
