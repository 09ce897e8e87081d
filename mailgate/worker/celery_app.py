"""Celery's app, its one task, and which process gets an event loop.

Owns the app that ``celery -A mailgate.worker.celery_app:app`` and Flower load, and
the wiring of a worker process: configuration, doorbell, bridge. Importing it reads
no configuration. Never holds more than a line of any task.
"""

from __future__ import annotations

import functools
import inspect
import mmap
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from celery import Celery, Task, signals
from celery.concurrency import prefork

from mailgate import failpoints, memory
from mailgate.config.embedded import complete
from mailgate.config.load import load, resolve_password
from mailgate.config.shape import Config
from mailgate.config.urls import is_redis
from mailgate.metrics.board import Board
from mailgate.model.state import Lane
from mailgate.worker import chores
from mailgate.worker.cleaning import clean_up
from mailgate.worker.doorbell import Doorbell, bell_of
from mailgate.worker.loop import Bridge, Delivers
from mailgate.worker.mends import (
    mend_connecting,
    mend_death_signal,
    mend_events,
    mend_late_starts,
    mend_redis_channel,
    mend_time_limits,
)
from mailgate.worker.settings import (
    CLEAN,
    CLEAN_FOR,
    FIRE,
    FIRE_HARD,
    FIRE_SOFT,
    TASK,
    celery_settings,
    queue_name,
    time_limits,
)
from mailgate.worker.waits import leave_soon, leave_unheard, maintain, wake_up, watch_children

if TYPE_CHECKING:
    from mailgate.operations.reloading import Source

#: Seconds that conversations get to end when a process stops.
GRACE = 10.0
#: Seconds that a process which ends gives its last rings.
LAST_RINGS = 1.0


class Factory(Protocol):
    """Builds the gateway of a process; called on its event loop."""

    def __call__(self, config: Config, ring: Callable[[Lane], None]) -> Delivers: ...


class PlainTask(Task):  # type: ignore[type-arg]
    """A task that Celery really runs.

    Celery calls an ``async def``, throws the coroutine away and reports success
    (celery #6552).
    """

    abstract = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        run = inspect.unwrap(cls.run)
        if inspect.iscoroutinefunction(run) or inspect.isasyncgenfunction(run):
            raise TypeError(f"task {cls.__name__}: Celery never runs an async def")


def _load() -> Config:
    return complete(load(None, os.environ, cwd=Path.cwd()))


class _Process:
    """What belongs to this process: the configuration, and a bridge and doorbell after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._bridge: Bridge | None = None
        self._doorbell: Doorbell | None = None
        self.given: Config | None = None
        self.read: Callable[[], Config] = _load
        # How often a signal asked to read the configuration again: seen by every fork.
        self._told = mmap.mmap(-1, 8)
        self.number: int | None = None
        self.board: Board | None = None
        self.when_ready: list[Callable[[], None]] = []
        self.factory: Factory = _build_gateway
        self._prepare: Callable[[Config], None] = _prepare_gateway

    def prepare(self) -> None:
        """In the worker's main process, before its pool starts."""
        self._prepare(config())

    def install(self, factory: Factory) -> None:
        self.factory = factory
        self._prepare = lambda _config: None

    def bridge(self) -> Bridge:
        """The bridge of this process, started at first use."""
        with self._lock:
            if self._bridge is None or self._pid != os.getpid():
                settings = config()
                limits = time_limits(settings.worker.deadline)
                doorbell = Doorbell(settings)
                make, ring = self.factory, doorbell.ring
                self._bridge = Bridge(
                    functools.partial(make, settings, ring),
                    ring,
                    deadline=limits.deadline,
                    overdue=limits.overdue,
                    lanes=_lanes(),
                    unheard=lambda: doorbell.unheard,
                )
                self._doorbell = doorbell
                self._pid = os.getpid()
                self._bridge.start()
            return self._bridge

    def ring(self, lane: Lane) -> None:
        """Ring from a task: the bridge of its process has a doorbell."""
        self.bridge()
        assert self._doorbell is not None
        self._doorbell.ring(lane)

    def source(self) -> Source:
        """Where the configuration is read again, and who asked for it.

        What a fork was given may be from before the last request: it reads it itself.
        """
        from mailgate.operations.reloading import Source

        return Source(self.read, self._times_told, self.number, self._adopted)

    def told_again(self, *_: Any) -> None:
        """SIGHUP: read the configuration again, here and in what was forked from here.

        billiard ends a child at that signal, so none is passed on.
        """
        self._told[:8] = (self._times_told() + 1).to_bytes(8, "little")

    def _times_told(self) -> int:
        return int.from_bytes(self._told[:8], "little")

    def _adopted(self, config: Config) -> None:
        self.given = config

    def stop(self) -> None:
        """Stop what this process started; does nothing in a parent of a prefork pool."""
        if self._bridge is not None and self._pid == os.getpid():
            self._bridge.stop(GRACE)
            assert self._doorbell is not None
            self._doorbell.close(timeout=LAST_RINGS)


def _prepare_gateway(config: Config) -> None:
    """Before a fork: import and read what the children need, once for all of them.

    What is frozen the collector never touches again, so that its pages stay shared.
    """
    from mailgate.gateway import preload

    preload(config)
    bell_of(config.broker.url or "")
    memory.stays()


def _build_gateway(config: Config, ring: Callable[[Lane], None]) -> Delivers:
    # Here and not above: beat, Flower and who only rings need none of its libraries.
    from mailgate.gateway import Gateway

    passwords = {
        name: password
        for name, relay in config.relays.items()
        if (password := resolve_password(relay, os.environ, name=name)) is not None
    }
    from mailgate.tracing.spans import Tracing

    return Gateway.from_config(
        config,
        ring=ring,
        passwords=passwords,
        password=lambda name, relay: resolve_password(relay, os.environ, name=name),
        board=_process.board,
        source=_process.source(),
        tracing=Tracing.to_collector("worker") if config.tracing.enabled else None,
    )


def _lanes() -> list[Lane]:
    """Those whose rings this worker takes."""
    taken = app.amqp.queues.consume_from
    return [lane for lane in Lane if queue_name(lane) in taken]


_process = _Process()


def install(factory: Factory) -> None:
    """Let worker processes drive another gateway; before the worker starts."""
    _process.install(factory)


def use(config: Config) -> None:
    """Say the configuration, before anything asks for it; else it is loaded at first use."""
    _process.given = config


def reread(read: Callable[[], Config], number: int) -> None:
    """Say how the configuration is read again when somebody asks for that.

    ``read`` raises ``ConfigError``; ``number`` is the last request that there was before
    what ``use`` was given.
    """
    _process.read, _process.number = read, number


def report_to(board: Board) -> None:
    """Where this process and its forks hang out their metrics; before the worker starts."""
    _process.board = board


def when_ready(call: Callable[[], None]) -> None:
    """Have ``call`` called in the worker's main process once its children are started."""
    _process.when_ready.append(call)


def config() -> Config:
    """The configuration of this process and its forks, read once; raises ``ConfigError``."""
    if _process.given is None:
        failpoints.arm(os.environ)
        _process.given = _load()
    return _process.given


app = Celery("mailgate", task_cls=PlainTask)
app.add_defaults(lambda: celery_settings(config()))


@app.task(name=TASK)
def deliver(lane: str) -> dict[str, int]:
    """Deliver what is due in a lane, until its deadline; returns counts, for Flower."""
    return _process.bridge().deliver(Lane(lane))


@app.task(name=CLEAN)
def clean() -> dict[str, int]:
    """Delete and redact what is kept no longer; returns counts, for Flower."""
    return clean_up(config(), CLEAN_FOR)


@app.task(name=FIRE, soft_time_limit=FIRE_SOFT, time_limit=FIRE_HARD)
def fire(name: str, at: int) -> dict[str, int]:
    """Fire a schedule; returns counts, for Flower."""
    return chores.fire(config(), name, at, _process.ring)


@signals.worker_init.connect(weak=False)
def _mend(sender: Any, **_: Any) -> None:
    if is_redis(config().broker.url or ""):
        # With RabbitMQ it would load redis-py for nothing.
        mend_redis_channel()
    mend_death_signal()
    mend_time_limits()
    mend_late_starts()
    mend_events()
    # Its pool is made later, and never another.
    mend_connecting(lambda: maintain(sender.pool))
    _process.prepare()


@signals.worker_process_init.connect(weak=False)
def _process_begins(**_: Any) -> None:
    """A child of a prefork pool, or a worker with the solo pool; has 4 seconds."""
    leave_unheard()
    _process.bridge()


@signals.worker_ready.connect(weak=False)
def _worker_is_ready(sender: Any, **_: Any) -> None:
    """In the threads pool this very process delivers; a prefork parent only hands out."""
    if isinstance(sender.pool, prefork.TaskPool):
        watch_children(sender.hub, sender.pool)
        if sender.hub is not None:
            sender.hub.call_repeatedly(memory.EVERY, memory.let_go)
    else:
        _process.bridge()
    if not os.isatty(0):
        # Celery's own handler would restart the worker, arguments and all. In a terminal
        # it ends with it.
        signal.signal(signal.SIGHUP, _process.told_again)
    for call in _process.when_ready:
        call()


@signals.worker_shutting_down.connect(weak=False)
def _worker_is_told_to_stop(**_: Any) -> None:
    wake_up()


@signals.worker_process_shutdown.connect(weak=False)
def _child_ends(exitcode: int, **_: Any) -> None:
    _process.stop()
    leave_soon(exitcode)


@signals.worker_shutdown.connect(weak=False)
def _worker_ends(**_: Any) -> None:
    _process.stop()
