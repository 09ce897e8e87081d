"""The doorbell: says to the workers of a lane that there may be work.

Owns publishing rings and how one is spelled (Celery's message protocol 2, on Redis in
kombu's envelope), the latch (one unconsumed ring a lane) and the silence about a broker
that is away. Never waits, never raises to who rings, and never carries anything but a
lane's name. A lost ring costs a second: each worker process looks at the journal by
itself, and works without one while there is nobody to ring at. Imports nothing of Celery,
which would be 8 MiB in each intake process: tests hold a ring to what Celery and kombu
themselves would send.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any, Self

from kombu import Connection, Producer

from mailgate import failpoints
from mailgate.config.shape import Config
from mailgate.model.state import Lane
from mailgate.worker.broker import broker_settings
from mailgate.worker.settings import TASK, queue_name, queues, time_limits

log = logging.getLogger(__name__)

#: Seconds for the broker to answer to a ring; then its connection is taken for dead.
_CONFIRM = 5.0

#: Seconds to try for a connection, all hosts of the URL included.
_CONNECT = 1.0


#: Who rings, as Flower shows it.
_ORIGIN = f"gen{os.getpid()}@{socket.gethostname()}"


def ring(lane: Lane, number: str, origin: str) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Headers and body of the task message that rings ``lane``; ``number`` is the task's id."""
    headers: dict[str, Any] = {
        "lang": "py",
        "task": TASK,
        "id": number,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": number,
        "parent_id": None,
        "argsrepr": repr([lane.value]),
        "kwargsrepr": "{}",
        "origin": origin,
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    links = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return headers, ([lane.value], {}, links)


def parcel(lane: Lane, number: str, origin: str, tag: str) -> str:
    """A ring as kombu's Redis transport writes it into a list; ``tag`` is the delivery's."""
    headers, body = ring(lane, number, origin)
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "correlation_id": number,
                "reply_to": "",
                "delivery_mode": 1,
                "delivery_info": {"exchange": "", "routing_key": queue_name(lane)},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": tag,
            },
        }
    )


class Doorbell:
    """Rings lanes from any thread or event loop of a process; also after a fork."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._changed = threading.Condition()
        self._wanted: set[Lane] = set()
        self._closing = False
        self._thread: threading.Thread | None = None
        #: Whether the last ring reached no broker; nobody knows before one was sent.
        self.unheard = False

    def ring(self, lane: Lane) -> None:
        """Wake a worker of ``lane``; returns at once. Rings not yet sent are one."""
        with self._changed:
            self._wanted.add(lane)
            # In a forked child the thread of the parent is not alive.
            if self._thread is None or not self._thread.is_alive():
                self._closing = False
                self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, timeout: float = 2.0) -> None:
        """Let out what was rung, for at most ``timeout`` seconds, and hang up."""
        with self._changed:
            thread, self._closing = self._thread, True
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        line = _Line(self._config)
        try:
            while True:
                with self._changed:
                    while not self._wanted:
                        if self._closing:
                            return
                        self._changed.wait()
                    # Taken before they are sent: who rings from now on is heard again.
                    lanes = [lane for lane in Lane if lane in self._wanted]
                    self._wanted.clear()
                for lane in lanes:
                    self.unheard = not line.send(lane)
        finally:
            line.hang_up()


class _Line:
    """A connection to the broker for rings alone, made when needed; for one thread."""

    def __init__(self, config: Config) -> None:
        self._url = config.broker.url or ""
        self._deadline = config.worker.deadline
        self._queues = {queue.name: queue for queue in queues()}
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._away_since: float | None = None

    def send(self, lane: Lane) -> bool:
        """Publish a ring unless one waits; false when there is no broker, which is logged once."""
        # A connection that was idle may have been closed by the other side long ago.
        for old in (True, False) if self._connection is not None else (False,):
            try:
                self._publish(lane)
            except Exception as error:  # noqa: BLE001 - of kombu, py-amqp, redis-py, OS
                self._drop()
                if not old:
                    self._went_away(error)
            else:
                self._came_back()
                return True
        return False

    def hang_up(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.release()

    def _drop(self) -> None:
        """Hang up without a word: whoever is not there never answers a farewell."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collect()

    def _publish(self, lane: Lane) -> None:
        failpoints.hit("ring.before")
        amqp = self._url.startswith("amqp")
        if self._connection is None:
            # Its own connection: the events of a worker need no confirmation, and nobody
            # would answer heartbeats here; a dead peer shows as a ring not confirmed.
            settings = broker_settings(self._url, time_limits(self._deadline).visibility)
            made: Any = Connection(
                settings["broker_url"],
                ssl=settings.get("broker_use_ssl", False),
                heartbeat=0,
                connect_timeout=4.0,
                failover_strategy="round-robin",
                transport_options={
                    **settings.get("broker_transport_options", {}),
                    **({"confirm_publish": True} if amqp else {"socket_timeout": _CONFIRM}),
                },
            )
            self._connection = made
            made.ensure_connection(interval_start=0.2, interval_step=0.2, timeout=_CONNECT)
            if amqp:
                # Also for replies that py-amqp itself would wait for without an end.
                made.connection.sock.settimeout(_CONFIRM)
        queue, number = queue_name(lane), str(uuid.uuid4())
        if not amqp:
            # Nobody has to know of an exchange, and kombu's publishing is as much work as all
            # else of a ring. One is enough, the newest, as on RabbitMQ (settings.queues).
            channel: Any = self._connection.default_channel
            client = channel.client
            if client.lpush(queue, parcel(lane, number, _ORIGIN, str(uuid.uuid4()))) > 1:
                client.ltrim(queue, 0, 0)
            return
        if self._producer is None:
            self._producer = Producer(self._connection.default_channel, auto_declare=False)
        headers, body = ring(lane, number, _ORIGIN)
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

    def _went_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning(
                "the broker does not take rings (%s); workers go on by their own look",
                type(error).__name__,
            )

    def _came_back(self) -> None:
        if self._away_since is not None:
            log.info(
                "the broker takes rings again, after %.0f s", time.monotonic() - self._away_since
            )
            self._away_since = None
