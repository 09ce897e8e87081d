"""Rings over RabbitMQ.

Owns the connection and the confirmation of each ring. Never asks how long one waits: the
queue keeps the newest (``settings.queues``). kombu is not asked: it would be 3 MiB in each
intake process.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from typing import Any

import amqp

from mailgate.amqp_servers import LOGIN, Server, servers
from mailgate.model.state import Lane
from mailgate.worker.ring import ORIGIN, ring
from mailgate.worker.settings import EXCHANGE, RINGS, queue_name

#: Seconds for the broker to answer to a ring; then its connection is taken for dead.
_CONFIRM = 5.0

#: Seconds to try for a connection to one address, as Celery does.
_CONNECT = 4.0


class AmqpBell:
    """A ``doorbell.Bell``; ``url`` may name several brokers, of which one is connected to."""

    def __init__(self, url: str) -> None:
        self._servers = servers(url)
        self._connection: amqp.Connection | None = None
        self._channel: Any = None
        # Queues that are known to be there.
        self._declared: set[str] = set()

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def ring(self, lane: Lane) -> None:
        if self._connection is None:
            self._connect()
        queue = queue_name(lane)
        if queue not in self._declared:
            self._declare(queue)
        self._channel.basic_publish_confirm(
            message(lane, str(uuid.uuid4()), ORIGIN), routing_key=queue, confirm_timeout=_CONFIRM
        )

    def drop(self) -> None:
        connection = self._let_go()
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collect()

    def hang_up(self) -> None:
        connection = self._let_go()
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _let_go(self) -> amqp.Connection | None:
        connection, self._connection, self._channel = self._connection, None, None
        self._declared.clear()
        return connection

    def _connect(self) -> None:
        for server in self._servers:
            try:
                self._open(server)
            except Exception:  # py-amqp fails in many ways
                self.drop()
                if server is self._servers[-1]:
                    raise
            else:
                return

    def _open(self, server: Server) -> None:
        # No heartbeats, which nobody would answer here; a dead peer shows as a ring not confirmed.
        connection: Any = amqp.Connection(
            **LOGIN | server,
            heartbeat=0,
            connect_timeout=_CONNECT,
            client_properties={"connection_name": "mailgate rings"},
        )
        self._connection = connection
        connection.connect()
        # Also for replies that py-amqp itself would wait for without an end.
        connection.sock.settimeout(_CONFIRM)
        self._channel = connection.channel()

    def _declare(self, queue: str) -> None:
        """As a worker does, which may not have been there yet."""
        self._channel.exchange_declare(EXCHANGE, "direct", durable=True, auto_delete=False)
        self._channel.queue_declare(queue, durable=True, auto_delete=False, arguments=dict(RINGS))
        self._channel.queue_bind(queue, EXCHANGE, queue)
        self._declared.add(queue)


def message(lane: Lane, number: str, origin: str) -> amqp.Message:
    """A ring as Celery would publish it."""
    headers, body = ring(lane, number, origin)
    return amqp.Message(
        json.dumps(body).encode(),
        application_headers=headers,
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=1,
        priority=0,
        correlation_id=number,
        reply_to="",
    )
