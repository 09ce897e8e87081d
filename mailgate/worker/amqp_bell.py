"""Rings over RabbitMQ.

Owns the connection and the confirmation of each ring. Never asks how long one waits: the
queue keeps the newest (``settings.queues``).
"""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

from kombu import Connection, Producer

from mailgate.model.state import Lane
from mailgate.worker.broker import broker_settings
from mailgate.worker.ring import ORIGIN, ring
from mailgate.worker.settings import queue_name, queues

#: Seconds for the broker to answer to a ring; then its connection is taken for dead.
_CONFIRM = 5.0

#: Seconds to try for a connection, all hosts of the URL included.
_CONNECT = 1.0


class AmqpBell:
    """A ``doorbell.Bell``; ``url`` may name several brokers, of which one is connected to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._queues = {queue.name: queue for queue in queues()}
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def ring(self, lane: Lane) -> None:
        if self._connection is None:
            self._connect()
        if self._producer is None:
            assert self._connection is not None
            self._producer = Producer(self._connection.default_channel, auto_declare=False)
        number, queue = str(uuid.uuid4()), queue_name(lane)
        headers, body = ring(lane, number, ORIGIN)
        self._producer.publish(
            body,
            routing_key=queue,
            serializer="json",
            delivery_mode=1,
            declare=[self._queues[queue]],
            headers=headers,
            correlation_id=number,
            reply_to="",
            confirm_timeout=_CONFIRM,
        )

    def drop(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collect()

    def hang_up(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.release()

    def _connect(self) -> None:
        # The events of a worker need no confirmation, and nobody would answer heartbeats
        # here; a dead peer shows as a ring not confirmed.
        settings = broker_settings(self._url, 0.0)
        made: Any = Connection(
            settings["broker_url"],
            ssl=settings.get("broker_use_ssl", False),
            heartbeat=0,
            connect_timeout=4.0,
            failover_strategy="round-robin",
            transport_options={**settings["broker_transport_options"], "confirm_publish": True},
        )
        self._connection = made
        made.ensure_connection(interval_start=0.2, interval_step=0.2, timeout=_CONNECT)
        # Also for replies that py-amqp itself would wait for without an end.
        made.connection.sock.settimeout(_CONFIRM)
