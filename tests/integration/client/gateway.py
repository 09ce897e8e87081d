"""A gateway of a few lines: it takes documents from a broker and tells events there.

Owns no mail. What it tells has been checked to be what a real one may say.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import amqp
import redis

from mailgate.amqp_servers import servers
from mailgate.client.amqp_way import options
from mailgate.contract.event import Event

Answers = Callable[[dict[str, Any]], list[dict[str, Any]]]


def event(kind: str, number: str, *, key: str = "k1", **more: Any) -> dict[str, Any]:
    made = {
        "version": 1,
        "id": number,
        "event": kind,
        "at": "2026-05-04T09:30:01.123Z",
        "producer": "shop",
        "message": {"id": "m1", "idempotency_key": key, "identity": f"key:{key}"},
        "seq": 0,
        **more,
    }
    Event.model_validate_json(json.dumps(made))
    return made


def state(document: dict[str, Any], result: str, **more: Any) -> dict[str, Any]:
    """The answer to a command; ``states`` are those of its recipients."""
    [verb] = {"cancel", "reschedule", "ask"} & document.keys()
    target = {k: v for k, v in document[verb].items() if k in ("id", "idempotency_key")}
    states = more.pop("states", [])
    if states:
        more["recipients"] = [
            {"id": f"r{n}", "n": n, "state": said, "attempts": 1} for n, said in enumerate(states)
        ]
    said = {"verb": verb, "id": document["id"], "target": target, "result": result, **more}
    return event("state", f"a-{document['id']}", command=said)


class Gateway:
    """Answers each command by ``answers(document)``; ``tell`` tells what nobody asked."""

    def __init__(self, url: str, answers: Answers = lambda document: []) -> None:
        self._url = url
        self._answers = answers
        self._over = threading.Event()
        self.seen: list[dict[str, Any]] = []
        self._tell: Callable[[dict[str, Any]], None]
        self._ready = threading.Event()
        serve = self._redis if url.startswith("redis") else self._amqp
        self._thread = threading.Thread(target=serve)
        self._thread.start()
        assert self._ready.wait(10)

    def tell(self, *events: dict[str, Any]) -> None:
        if self._url.startswith("redis"):
            with redis.Redis.from_url(self._url) as client:
                for one in events:
                    client.xadd("mailgate:events:shop", {"event": json.dumps(one)})
            return
        with amqp.Connection(**options(*servers(self._url), 5)) as link:
            channel = link.channel()
            for one in events:
                self._to_exchange(channel, one)

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _redis(self) -> None:
        position: Any = "0"
        with redis.Redis.from_url(self._url) as client:
            with contextlib.suppress(redis.ResponseError):  # it is there already
                client.xgroup_create("mailgate:inbox", "mailgate", id="0", mkstream=True)
            self._ready.set()
            while not self._over.is_set():
                for _, entries in client.xread({"mailgate:inbox": position}, block=50) or []:
                    for position, fields in entries:  # noqa: B007
                        self._take(json.loads(fields[b"message"]), None)

    def _amqp(self) -> None:
        with amqp.Connection(**options(*servers(self._url), 5)) as link:
            channel = link.channel()
            channel.exchange_declare("mailgate.events", "topic", durable=True, auto_delete=False)
            channel.queue_declare("mailgate.inbox", durable=True, auto_delete=False)
            channel.basic_consume(
                "mailgate.inbox",
                no_ack=True,
                callback=lambda message: self._take(json.loads(message.body), channel),
            )
            self._ready.set()
            while not self._over.is_set():
                try:
                    link.drain_events(timeout=0.05)
                except TimeoutError:
                    continue

    def _take(self, document: dict[str, Any], channel: Any) -> None:
        self.seen.append(document)
        for one in self._answers(document) if "to" not in document else []:
            if channel is None:
                self.tell(one)
            else:
                self._to_exchange(channel, one)

    @staticmethod
    def _to_exchange(channel: Any, said: dict[str, Any]) -> None:
        key = f"{said['producer']}.{said['event']}"
        channel.basic_publish_confirm(amqp.Message(json.dumps(said)), "mailgate.events", key)


def until(seen: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
