"""The fourth book: the events that a producer hears, read by a plain client.

Owns a queue behind the exchange, or the reading of the Redis streams. Uses nothing of
mailgate.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import amqp
import redis

_EXCHANGE = "mailgate.events"
_QUEUE = "stage.events"


class Told:
    """``broker`` is an AMQP URL, or a client of Redis."""

    def __init__(self, broker: str | redis.Redis) -> None:
        self._broker = broker
        self._heard: list[dict[str, Any]] = []
        if isinstance(broker, str):
            with self._connection(broker) as connection:
                channel = connection.channel()
                channel.exchange_declare(_EXCHANGE, "topic", durable=True, auto_delete=False)
                channel.queue_declare(_QUEUE, durable=True, auto_delete=False)
                channel.queue_bind(_QUEUE, _EXCHANGE, "#")

    def _connection(self, url: str) -> amqp.Connection:
        part = urlsplit(url)
        host = f"{part.hostname}:{part.port}"
        return amqp.Connection(host, part.username, part.password, virtual_host=part.path[1:])

    def events(self) -> list[dict[str, Any]]:
        """Every event so far, repeats included."""
        if isinstance(self._broker, str):
            with self._connection(self._broker) as connection:
                channel = connection.channel()
                while (message := channel.basic_get(_QUEUE, no_ack=True)) is not None:
                    self._heard.append(json.loads(message.body))
            return self._heard
        found = []
        for stream in self._broker.scan_iter(match="mailgate:events:*", _type="stream"):
            for _, fields in self._broker.xrange(stream):
                text = next(v for v in fields.values() if v.startswith(b"{"))
                found.append(json.loads(text))
        return found

    def ids(self) -> set[str]:
        """Each event once."""
        return {event["id"] for event in self.events()}
