"""What ``mailgate send`` publishes arrives at the doors as any producer's message would."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mailgate.intake.doors import open_doors
from mailgate.intake.publish import PublishError, publish
from tests.servers.process import free_port


async def _received(url: str) -> list[bytes]:
    bodies: list[bytes] = []
    for door in open_doors(url, "mailgate.inbox"):
        await door.open()
        found = await door.receive(10, 0.5)
        bodies += [d.body for d in found]
        await door.done(found)
        await door.close()
    return bodies


def _blocking(url: str, bodies: list[bytes]) -> None:
    for body in bodies:
        publish(url, "mailgate.inbox", body)


async def test_a_document_sent_over_rabbitmq_arrives_whether_or_not_the_queue_was_there(
    rabbitmq: Any,
) -> None:
    await asyncio.to_thread(_blocking, rabbitmq.url, [b'{"n": 1}', b'{"n": 2}'])
    assert await _received(rabbitmq.url) == [b'{"n": 1}', b'{"n": 2}']


async def test_a_document_sent_over_redis_arrives(valkey: Any) -> None:
    await asyncio.to_thread(_blocking, valkey.broker_url, [b'{"n": 1}'])
    assert await _received(valkey.broker_url) == [b'{"n": 1}']


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_away_is_one_error(scheme: str) -> None:
    with pytest.raises(PublishError):
        publish(f"{scheme}://127.0.0.1:{free_port()}/", "mailgate.inbox", b"{}")
