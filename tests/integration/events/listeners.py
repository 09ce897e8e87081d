"""Producers' ears on both brokers: what a program of theirs would read.

Owns nothing of mailgate: plain clients only.
"""

from __future__ import annotations

import json
import time
from typing import Any, Protocol
from urllib.parse import urlsplit

import amqp
import redis

from tests.servers import Valkey, Vhost

Document = dict[str, Any]


class Listener(Protocol):
    url: str

    def heard(self, producer: str) -> list[Document]:
        """All events so far, in the order in which they came."""

    def wait(self, producer: str, count: int, within: float = 15.0) -> list[Document]: ...


class _Waits:
    def heard(self, producer: str) -> list[Document]:
        raise NotImplementedError

    def wait(self, producer: str, count: int, within: float = 15.0) -> list[Document]:
        until = time.monotonic() + within
        while len(found := self.heard(producer)) < count:
            assert time.monotonic() < until, f"{len(found)} of {count}: {found}"
            time.sleep(0.02)
        return found


class RedisListener(_Waits):
    def __init__(self, valkey: Valkey) -> None:
        self.url = valkey.broker_url
        self.server = valkey

    def heard(self, producer: str) -> list[Document]:
        with redis.Redis.from_url(self.server.socket_url) as client:
            entries = client.xrange(f"mailgate:events:{producer}")
        assert all(set(fields) == {b"event"} for _, fields in entries)
        return [json.loads(fields[b"event"]) for _, fields in entries]


class RabbitListener(_Waits):
    """A queue bound for each producer, made before anything is published."""

    def __init__(self, vhost: Vhost, *producers: str, **arguments: Any) -> None:
        self.url = vhost.url
        self.server = vhost
        self._heard: dict[str, list[Document]] = {}
        self.properties: list[dict[str, Any]] = []
        self.keys: list[str] = []
        with self._connected() as connection:
            channel = connection.channel()
            channel.exchange_declare("mailgate.events", "topic", durable=True, auto_delete=False)
            for producer in producers:
                queue = f"{producer}.events"
                kind = {"x-queue-type": "quorum", **arguments}
                channel.queue_declare(queue, durable=True, auto_delete=False, arguments=kind)
                channel.queue_bind(queue, "mailgate.events", f"{producer}.#")
                self._heard[producer] = []

    def _connected(self) -> amqp.Connection:
        part = urlsplit(self.url)
        return amqp.Connection(
            f"{part.hostname}:{part.port}", part.username, part.password, virtual_host=part.path[1:]
        )

    def heard(self, producer: str) -> list[Document]:
        with self._connected() as connection:
            channel = connection.channel()
            while (message := channel.basic_get(f"{producer}.events", no_ack=True)) is not None:
                self._heard[producer].append(json.loads(message.body))
                self.properties.append(message.properties)
                self.keys.append(message.delivery_info["routing_key"])
        return self._heard[producer]
