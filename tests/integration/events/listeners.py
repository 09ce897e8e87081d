"""Producers' ears on both brokers: what a program of theirs would read.

Owns hearing with plain clients, and what must have been heard.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import amqp
import redis

from mailgate.model.ids import spell

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
    """``url`` as mailgate takes it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def heard(self, producer: str) -> list[Document]:
        with redis.Redis.from_url(self.url.replace("redis+socket://", "unix://")) as client:
            entries = client.xrange(f"mailgate:events:{producer}")
        assert all(set(fields) == {b"event"} for _, fields in entries)
        return [json.loads(fields[b"event"]) for _, fields in entries]


class RabbitListener(_Waits):
    """A queue bound for each producer, made before anything is published."""

    def __init__(self, url: str, *producers: str, **arguments: Any) -> None:
        self.url = url
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


def listen(url: str, *producers: str) -> Listener:
    """An ear on whichever broker the URL names."""
    if url.startswith("amqp"):
        return RabbitListener(url, *producers)
    return RedisListener(url)


def first_of_each(heard: Sequence[Document]) -> dict[str, list[str]]:
    """The ids as a reader that passes over repeats sees them, by recipient or message."""
    out: dict[str, list[str]] = {}
    for one in heard:
        ids = out.setdefault(one["id"].rpartition("-")[0], [])
        if one["id"] not in ids:
            ids.append(one["id"])
    return out


def expected(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The ids that the rows of ``events`` must be published under, the same way."""
    out: dict[str, list[str]] = {}
    for row in rows:
        detail = json.loads(row["detail"] or "{}")
        if row["recipient_id"] is not None:
            who = spell(row["recipient_id"])
            out.setdefault(who, []).append(f"{who}-{row['seq']}")
        elif row["kind"] in ("accepted", "conflict", "parked"):
            about = detail.get("parked") or spell(row["message_id"])
            out.setdefault(about, []).append(f"{about}-{row['kind']}")
    return out
