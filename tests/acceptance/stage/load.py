"""Messages, and publishing them as a stranger's program does: JSON and a plain client.

Owns the raw publishing over each door. Uses nothing of mailgate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import amqp
import redis

Document = dict[str, Any]


def mails(count: int, *, to: str = "n", domain: str = "example.com", **more: Any) -> list[Document]:
    """Small messages, each to a recipient of its own: ``to+0@domain``, ``to+1@domain``, …"""
    return [
        {"to": [f"{to}+{n}@{domain}"], "subject": f"Number {n}", "text": f"This is number {n}."}
        | more
        for n in range(count)
    ]


def recipients(documents: Iterable[Document]) -> list[str]:
    """Every address that the documents ask for."""
    found = []
    for document in documents:
        entries: list[Any] = []
        for field in ("to", "cc", "bcc", "recipients"):
            said = document.get(field, [])
            entries += said if isinstance(said, list) else [said]
        found += [entry["email"] if isinstance(entry, dict) else entry for entry in entries]
    return found


def raw(document: Document | bytes) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def _chunks(documents: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for at in range(0, len(documents), size):
        yield documents[at : at + size]


def publish_stream(client: redis.Redis, documents: Sequence[Document | bytes]) -> None:
    """XADD, in the field ``message``."""
    for chunk in _chunks(documents, 500):
        with client.pipeline(transaction=False) as line:
            for document in chunk:
                line.xadd("mailgate:inbox", {"message": raw(document)})
            line.execute()


def publish_list(client: redis.Redis, documents: Sequence[Document | bytes]) -> None:
    """LPUSH."""
    for chunk in _chunks(documents, 500):
        client.lpush("mailgate:inbox:list", *(raw(document) for document in chunk))


def _amqp(url: str) -> amqp.Connection:
    part = urlsplit(url)
    host = f"{part.hostname}:{part.port}"
    return amqp.Connection(host, part.username, part.password, virtual_host=part.path[1:])


def waiting_amqp(url: str) -> int:
    """How many messages are ready in the inbox."""
    with _amqp(url) as connection:
        return int(connection.channel().queue_declare("mailgate.inbox", passive=True).message_count)


def publish_amqp(
    url: str,
    documents: Sequence[Document | bytes],
    ready: Callable[[], None] | None = None,
    **properties: Any,
) -> None:
    """basic.publish to the default exchange, persistent; returns when the broker has all.

    ``ready`` is called before the first of them, when all else has been said.
    """
    with _amqp(url) as connection:
        channel = connection.channel()
        try:
            channel.queue_declare("mailgate.inbox", passive=True)
        except amqp.NotFound:
            channel = connection.channel()
            kind = {"x-queue-type": "quorum"}
            channel.queue_declare("mailgate.inbox", durable=True, auto_delete=False, arguments=kind)
        confirmed: set[int] = set()

        def on_ack(tag: int, multiple: bool) -> None:
            confirmed.update(range(1, tag + 1) if multiple else (tag,))

        channel.events["basic_ack"].add(on_ack)
        channel.confirm_select()
        if ready is not None:
            ready()
        for document in documents:
            message = amqp.Message(raw(document), delivery_mode=2, **properties)
            channel.basic_publish(message, "", "mailgate.inbox")
        while len(confirmed) < len(documents):
            connection.drain_events(timeout=30)
