"""How much waits in the broker's queues, as a reader sees them, over real brokers."""

from __future__ import annotations

import kombu

from mailgate.intake.depth import Depth, inboxes, lists
from tests.servers import Valkey, Vhost


def test_redis_tells_of_streams_and_lists_and_makes_none(valkey: Valkey) -> None:
    with valkey.client() as client:
        client.xadd("mailgate:inbox", {"message": "{}"})
        client.lpush("mailgate:inbox:list", "{}", "{}")
        client.set("mailgate.high", "no list")
        found = inboxes(valkey.broker_url, ["mailgate.inbox"])
        assert found == [Depth("mailgate:inbox", 1), Depth("mailgate:inbox:list", 2)]
        high, bulk = lists(valkey.broker_url, ["mailgate.high", "mailgate.bulk"])
        assert (high.waiting, bulk.waiting) == (None, 0)
        assert not client.exists("mailgate.bulk")


def test_rabbitmq_tells_of_queues_and_makes_none(rabbitmq: Vhost) -> None:
    with kombu.Connection(rabbitmq.url) as link:
        link.SimpleQueue("mailgate.high").put("ring")
    found = lists(rabbitmq.url, ["mailgate.none", "mailgate.high"])
    assert found == [
        Depth("mailgate.none", None, "is not there yet"),
        Depth("mailgate.high", 1),
    ]
    assert [q["name"] for q in rabbitmq.api("GET", "/api/queues/{vhost}")] == ["mailgate.high"]


def test_a_broker_that_is_away_is_a_word_and_no_error() -> None:
    for url in ("redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"):
        for found in inboxes(url, ["mailgate.inbox"]):
            assert found.waiting is None
            assert found.fault.startswith("the broker is away (")
