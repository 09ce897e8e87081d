"""What became of the mail: the producer's events, as they come.

Owns reading them from Redis and RabbitMQ: passing by (``group`` None: what is told from
now on, for whoever waits for one answer) or for good (a consumer group, a durable queue:
each event is kept until it was dealt with). Never publishes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from mailgate.amqp_servers import Server
from mailgate.client.ways import Missing

#: Where events go (docs/events.md).
EXCHANGE = "mailgate.events"
STREAM = "mailgate:events:"
#: Seconds after which another consumer takes over what one has not acknowledged.
IDLE = 60.0
#: Seconds: a RabbitMQ that is silent for two of these is gone, and so are we for it.
HEARTBEAT = 15
#: Seconds that RabbitMQ has for its part of a farewell.
FAREWELL = 2.0
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``document`` is all of it, as the events' guide has it."""

    document: dict[str, Any]
    handle: Any = None

    @property
    def name(self) -> str:
        """``accepted``, ``sent``, ``bounced``, …"""
        return str(self.document["event"])

    @property
    def id(self) -> str:
        """The same whenever this event comes again."""
        return str(self.document["id"])

    @property
    def final(self) -> bool:
        return bool(self.document.get("final"))

    @property
    def message(self) -> dict[str, Any]:
        return dict(self.document["message"])

    @property
    def address(self) -> str | None:
        """The recipient's, if it is about one and not sensitive."""
        email = self.document.get("recipient", {}).get("email")
        return None if email is None else str(email)

    def get(self, field: str, default: Any = None) -> Any:
        return self.document.get(field, default)

    def __getitem__(self, field: str) -> Any:
        return self.document[field]


class Listener(Protocol):
    """One connection on which events come. Raises ``ways.Away``, ``Missing`` or ``Shut``."""

    def read(self, wait: float) -> Sequence[Event]:
        """What is there, or comes within ``wait`` seconds; never two batches at once."""
        ...

    def done(self, event: Event) -> None: ...

    def close(self) -> None: ...


class RedisListener:
    """Reads one producer's Redis stream."""

    def __init__(self, url: str, producer: str, *, timeout: float, group: str | None) -> None:
        import redis

        from mailgate.client.redis_way import clients

        self._client = clients(url, timeout, redis)
        self._stream = STREAM + producer
        self._longest = timeout / 2
        self._group = group
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
        self._look_at = 0.0
        self._position = "0-0"
        with _redis_errors():
            if group is None:
                if last := self._client.xrevrange(self._stream, count=1):
                    self._position = last[0][0]
            else:
                self._join(group)

    def _join(self, group: str) -> None:
        from redis.exceptions import ResponseError

        try:
            self._client.xgroup_create(self._stream, group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def read(self, wait: float) -> Sequence[Event]:
        block = max(1, int(min(wait, self._longest) * 1000))
        with _redis_errors():
            if self._group is None:
                found = self._client.xread({self._stream: self._position}, _BATCH, block)
                entries = found[0][1] if found else []
                if entries:
                    self._position = entries[-1][0]
            else:
                entries = self._abandoned(self._group)
                if not entries:
                    found = self._client.xreadgroup(
                        self._group, self._consumer, {self._stream: ">"}, _BATCH, block
                    )
                    entries = found[0][1] if found else []
        return [
            Event(json.loads(fields[b"event"]), entry)
            for entry, fields in entries
            if fields and b"event" in fields
        ]

    def _abandoned(self, group: str) -> Any:
        if time.monotonic() < self._look_at:
            return []
        reply = self._client.xautoclaim(
            self._stream, group, self._consumer, int(IDLE * 1000), count=_BATCH
        )
        if not reply[1]:
            self._look_at = time.monotonic() + IDLE / 4
        return [entry for entry in reply[1] if entry[0] is not None]

    def done(self, event: Event) -> None:
        if self._group is not None:
            with _redis_errors():
                self._client.xack(self._stream, self._group, event.handle)

    def close(self) -> None:
        import redis

        with suppress(redis.RedisError, OSError):
            if self._group is not None:
                # What we hold and did not acknowledge must stay known.
                held = self._client.xpending_range(
                    self._stream, self._group, "-", "+", 1, self._consumer
                )
                if not held:
                    self._client.xgroup_delconsumer(self._stream, self._group, self._consumer)
        self._client.close()


@contextmanager
def _redis_errors() -> Iterator[None]:
    """redis-py's exceptions as those of the ways."""
    from redis.exceptions import RedisError

    from mailgate.client.redis_way import explained

    try:
        yield
    except (RedisError, OSError) as error:
        raise explained(error) from error


class AmqpListener:
    """Reads what the exchange has for one producer, from a queue of its own."""

    def __init__(self, server: Server, producer: str, *, timeout: float, group: str | None) -> None:
        import amqp

        from mailgate.client.amqp_way import options

        self._found: list[Event] = []
        self._kept = group is not None
        self._connection = amqp.Connection(**options(server, timeout) | {"heartbeat": HEARTBEAT})
        #: Held while the connection is used.
        self._turn = threading.Lock()
        self._over = threading.Event()
        with _amqp_errors(self._connection.collect):
            self._connection.connect()
            self._channel = self._connection.channel()
            if group is None:
                queue = str(self._channel.queue_declare("", exclusive=True)[0])  # type: ignore[index]
            else:
                arguments = {"x-queue-type": "quorum"}
                queue = group
                self._channel.queue_declare(
                    queue, durable=True, auto_delete=False, arguments=arguments
                )
            self._channel.queue_bind(queue, EXCHANGE, f"{producer}.#")
            self._channel.basic_qos(0, _BATCH, False)
            self._channel.basic_consume(queue, no_ack=not self._kept, callback=self._take)
        if self._kept:
            # Whoever deals with an event may take longer than the broker waits for a sign.
            threading.Thread(target=self._beat, name="mailgate-heart", daemon=True).start()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT / 3):
            with self._turn, suppress(Exception):  # whoever reads or acknowledges meets it too
                self._connection.send_heartbeat()

    def _take(self, message: Any) -> None:
        body = message.body
        self._found.append(Event(json.loads(body), message.delivery_tag))

    def read(self, wait: float) -> Sequence[Event]:
        with _amqp_errors(self._connection.collect), self._turn:
            try:
                while not self._found:
                    self._connection.drain_events(timeout=max(wait, 0.001))
            except TimeoutError:
                # All that came has been read: who has been silent for two heartbeats is gone.
                self._connection.heartbeat_tick()
        found, self._found = self._found, []
        return found

    def done(self, event: Event) -> None:
        if self._kept:
            with _amqp_errors(self._connection.collect), self._turn:
                self._channel.basic_ack(event.handle)

    def close(self) -> None:
        from amqp.exceptions import AMQPError

        self._over.set()
        with self._turn, suppress(AMQPError, OSError):
            if self._connection.connected and (line := self._connection.sock) is not None:
                line.settimeout(FAREWELL)
                self._connection.close()
        self._connection.collect()


@contextmanager
def _amqp_errors(close: Callable[[], None]) -> Iterator[None]:
    """py-amqp's exceptions as those of the ways; the connection is of no use after one."""
    from amqp.exceptions import AMQPError, NotFound

    from mailgate.client.amqp_way import explained

    try:
        yield
    except (AMQPError, OSError) as error:
        close()
        if isinstance(error, NotFound):
            raise Missing(f"there is no exchange {EXCHANGE}") from error
        raise explained(error) from error


def listeners(
    url: str, producer: str, *, timeout: float, group: str | None
) -> Iterator[Callable[[], Listener]]:
    """For each URL what opens a listener there, round and round."""
    from functools import partial
    from itertools import cycle

    from mailgate.amqp_servers import servers
    from mailgate.config.urls import is_redis, is_sentinel

    kind: Any = RedisListener if is_redis(url) else AmqpListener
    if not is_redis(url):
        each: list[Any] = servers(url)
    else:
        each = [url] if is_sentinel(url) else url.split(";")
    for one in cycle(each):
        yield partial(kind, one, producer, timeout=timeout, group=group)
