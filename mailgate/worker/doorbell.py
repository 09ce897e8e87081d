"""The doorbell: says to the workers of a lane that there may be work.

Owns publishing rings, the latch (about one unconsumed ring a lane) and the
silence about a broker that is away. Never waits, never raises to who rings, and
never carries anything but a lane's name. A lost ring costs a second: each worker
process looks at the journal by itself.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from types import TracebackType
from typing import Any, Self

from celery import Celery
from kombu import Connection, Producer

from mailgate import failpoints
from mailgate.model.state import Lane
from mailgate.worker.settings import TASK, queue_name

log = logging.getLogger(__name__)

#: Seconds for the broker to confirm a ring; then its connection is taken for dead.
_CONFIRM = 5.0

#: Seconds to try for a connection, all hosts of the URL included.
_CONNECT = 1.0


class Doorbell:
    """Rings lanes from any thread or event loop of a process; also after a fork."""

    def __init__(self, app: Celery[Any]) -> None:
        self._app = app
        self._changed = threading.Condition()
        self._wanted: set[Lane] = set()
        self._closing = False
        self._thread: threading.Thread | None = None

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
        line = _Line(self._app)
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
                    line.send(lane)
        finally:
            line.hang_up()


class _Line:
    """A connection to the broker for rings alone, made when needed; for one thread."""

    def __init__(self, app: Celery[Any]) -> None:
        self._app = app
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._away_since: float | None = None

    def send(self, lane: Lane) -> None:
        """Publish a ring unless one waits; a broker that is away is logged once."""
        # A connection that was idle may have been closed by the other side long ago.
        for old in (True, False) if self._connection is not None else (False,):
            try:
                self._publish(lane)
            except Exception as error:  # noqa: BLE001 - of kombu, py-amqp, redis-py, OS
                self.hang_up()
                if not old:
                    self._went_away(error)
            else:
                self._came_back()
                return

    def hang_up(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.release()

    def _publish(self, lane: Lane) -> None:
        failpoints.hit("ring.before")
        if self._connection is None:
            # Its own connection: the events of a worker need no confirmation, and nobody
            # would answer heartbeats here; a dead peer shows as a ring not confirmed.
            self._connection = self._app.connection_for_write(
                heartbeat=0,
                transport_options={
                    **self._app.conf.broker_transport_options,
                    "interval_start": 0.2,
                    "interval_step": 0.2,
                    "connect_retries_timeout": _CONNECT,
                    **({"confirm_publish": True} if self._is_amqp() else {}),
                },
            )
        connection = self._connection
        if self._producer is None:
            self._producer = self._app.amqp.Producer(connection.default_channel, auto_declare=False)
        queue = queue_name(lane)
        if connection.transport.driver_type == "redis":
            # RabbitMQ's queues keep one ring by themselves (settings.queues). A ring that
            # nobody has taken yet will be followed by a look at the journal: enough.
            channel: Any = self._producer.channel
            if channel.client.llen(queue):
                return
        options: dict[str, Any] = {"confirm_timeout": _CONFIRM} if self._is_amqp() else {}
        self._app.send_task(
            TASK,
            args=[lane.value],
            queue=queue,
            producer=self._producer,
            retry=False,
            ignore_result=True,
            **options,
        )

    def _is_amqp(self) -> bool:
        return str(self._app.conf.broker_url).startswith("amqp")

    def _went_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning(
                "the broker does not take rings (%s); workers find work by their own look",
                type(error).__name__,
            )

    def _came_back(self) -> None:
        if self._away_since is not None:
            log.info(
                "the broker takes rings again, after %.0f s", time.monotonic() - self._away_since
            )
            self._away_since = None
