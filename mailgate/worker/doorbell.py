"""The doorbell: says to the workers of a lane that there may be work.

Owns the latch (one unconsumed ring a lane) and the silence about a broker that is away.
Never waits, never raises to who rings, and never carries anything but a lane's name. A lost
ring costs a second: each worker process looks at the journal by itself, and works without
one while there is nobody to ring at. How a ring is spelled says ``ring``; ``amqp_bell`` and
``redis_bell`` speak to the brokers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from mailgate import failpoints
from mailgate.config.shape import Config
from mailgate.config.urls import is_redis
from mailgate.model.state import Lane

log = logging.getLogger(__name__)


class Bell(Protocol):
    """Connections to one kind of broker, for rings alone; for one thread."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection, which the other side may have closed long ago."""

    def ring(self, lane: Lane) -> None:
        """Publish a ring unless one waits; raises what the broker's library and the OS raise."""

    def drop(self) -> None:
        """Hang up without a word: whoever is not there never answers a farewell."""

    def hang_up(self) -> None: ...


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
        except BaseException:
            self.unheard = True
            raise
        finally:
            line.hang_up()


class _Line:
    """A bell that says once that nobody hears it, and once that somebody does."""

    def __init__(self, config: Config) -> None:
        self._url = config.broker.url or ""
        self._bell: Bell | None = None
        self._away_since: float | None = None

    def send(self, lane: Lane) -> bool:
        """Ring; false when there is no broker, which is logged once."""
        # A connection that was idle may have been closed by the other side long ago.
        for old in (True, False) if self._bell and self._bell.connected else (False,):
            try:
                failpoints.hit("ring.before")
                if self._bell is None:
                    self._bell = bell_of(self._url)(self._url)
                self._bell.ring(lane)
            except Exception as error:  # noqa: BLE001 - of kombu, py-amqp, redis-py, OS
                if self._bell is not None:
                    self._bell.drop()
                if not old:
                    self._went_away(error)
            else:
                self._came_back()
                return True
        return False

    def hang_up(self) -> None:
        if self._bell is not None:
            self._bell.hang_up()

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


def bell_of(url: str) -> Callable[[str], Bell]:
    """What rings at the broker of ``url``; the library of the other kind is not loaded."""
    if is_redis(url):
        from mailgate.worker.redis_bell import RedisBell

        return RedisBell
    from mailgate.worker.amqp_bell import AmqpBell

    return AmqpBell
