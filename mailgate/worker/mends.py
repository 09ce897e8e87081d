"""Mends of Celery and of kombu's Redis transport, each narrow and for the versions that need it.

Owns the change of other people's code at run time; there is none elsewhere in
this package. Never changes a version that it was not tested with: a newer one
runs as it is, and ``tests/integration/worker`` says whether it survives.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

#: The Celery and kombu that were seen to fail without the mends.
_TESTED = ("5.7.",)

#: prctl(2): the signal that a process gets when the one that forked it ends.
_PR_SET_PDEATHSIG = 1
#: What a main process has not read yet of its children it has within this (seconds).
_READ = 1.0
#: Its events wait so long for others (seconds): most tasks are over by then.
_GATHER = 0.02


def mend_redis_channel() -> bool:
    """Make a channel whose connection is gone say so as a connection error.

    When Redis goes away while a late-acknowledged task runs, closing the consumer's
    connection restores its messages through ``Channel._connparams`` on a channel
    without a connection: an ``AttributeError``, which ends the worker (kombu #582).
    A ``redis.ConnectionError`` is handled there. Returns whether it was needed.
    """
    transport: Any = import_module("kombu.transport.redis")  # its stubs know no channel

    def mended(original: Any) -> Any:
        def _connparams(self: Any, asynchronous: bool = False) -> Any:
            if self.connection is None or self.connection.client is None:
                raise transport.redis.ConnectionError("the channel's connection is closed")
            return original(self, asynchronous=asynchronous)

        return _connparams

    return _mend("kombu", transport.Channel, "_connparams", mended)


def mend_time_limits() -> bool:
    """Have a time limit look at what the children said before it ends one of them.

    While the main process waits for its broker it reads no results, and the clock of the
    tasks goes on. After an outage longer than the limit that clock is looked at first: a
    task that was over long ago is found late, and its child, which has other mail in hand
    by now or none, is ended for it. So each limit waits until the loop has run for a while.
    Returns whether it was needed.
    """
    get_event_loop: Any = import_module("kombu.asynchronous").get_event_loop

    def mended(original: Any) -> Any:
        def patiently(self: Any, job: int, *rest: Any) -> None:
            def keep(timer: Any) -> None:
                # Where the pool looks for what is to be cancelled when the task ends.
                self._tref_for_id[job] = timer

            _when_read(get_event_loop(), lambda: original(self, job, *rest), keep)

        return patiently

    pool = _async_pool()
    soft = _mend("celery", pool, "_on_soft_timeout", mended)
    return _mend("celery", pool, "_on_hard_timeout", mended) and soft


def mend_late_starts() -> bool:
    """Have a main process read what a new child said before it takes that for never started.

    A child that was started just before the main process began to wait for its broker has
    said so long ago when that is over, and has mail in hand; but the clock of its start is
    looked at before its word is read, and it is killed. Returns whether it was needed.
    """

    def mended(original: Any) -> Any:
        return lambda self, hub: original(self, _Unhurried(hub))

    return _mend("celery", _async_pool(), "_create_process_handlers", mended)


def mend_connecting(maintain: Callable[[], None]) -> bool:
    """Have ``maintain`` called once a second while a worker waits for its broker.

    Its main process does nothing else then, for up to half a minute between two tries, and
    would replace no dead child. Returns whether it was needed.
    """
    consumer: Any = import_module("celery.worker.consumer.consumer")

    def mended(original: Any) -> Any:
        def maybe_shutdown() -> None:
            original()
            maintain()

        return maybe_shutdown

    return _mend("celery", consumer, "maybe_shutdown", mended)


def mend_events() -> bool:
    """Have a main process hand a task to a child before it tells the broker of it.

    Celery publishes what it has to say of its tasks with the next turn of its loop, which is
    the turn that writes a task to a child: each task waited until the broker had heard that
    it was received. What is said now goes out a moment later, with what follows it. Returns
    whether it was needed.
    """
    consumer: Any = import_module("celery.worker.consumer").Consumer
    state: Any = import_module("celery.worker.state")

    def mended(original: Any) -> Any:
        def on_send_event_buffered(self: Any) -> None:
            # A thread of the pool does not wake the loop for a timer; and a loop that is about
            # to end carries out what is to be done next, and no timer.
            ours = getattr(self.hub, "_loop_thread", None) == threading.get_ident()
            if not ours or state.should_stop is not None:
                original(self)
                return
            now = time.monotonic()
            # By time and not by a flag: a timer may be lost with a connection.
            if now >= getattr(self, "gathers_until", 0.0):
                self.gathers_until = now + _GATHER
                self.hub.call_later(_GATHER, self._flush_events)

        return on_send_event_buffered

    return _mend("celery", consumer, "on_send_event_buffered", mended)


def mend_death_signal() -> bool:
    """Have a child ask the kernel to end it with its parent without a compiler.

    Where cffi is installed, billiard has it read a declaration in C for that, in each child:
    two megabytes that no process shares. Returns whether it was needed.
    """

    def mended(_original: Any) -> Any:
        def set_pdeathsig(number: int) -> None:
            prctl = getattr(ctypes.CDLL(None), "prctl", None)
            if prctl is None or prctl(_PR_SET_PDEATHSIG, number):
                raise OSError("only Linux has it")

        return set_pdeathsig

    return _mend("celery", import_module("celery.platforms"), "_set_pdeathsig", mended)


def _mend(library: str, owner: Any, name: str, mended: Callable[[Any], Any]) -> bool:
    """Put what ``mended`` makes of a function in its place, once; false where it is not tested."""
    if not version(library).startswith(_TESTED):
        return False
    original = getattr(owner, name)
    if not getattr(original, "mended", False):
        new = mended(original)
        new.mended = True
        setattr(owner, name, new)
    return True


class _Unhurried:
    """Celery's loop, for whoever may do something only after what the children said is read."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    def call_later(self, delay: float, act: Any, *rest: Any) -> Any:
        return self._hub.call_later(delay, _when_read, self._hub, lambda: act(*rest))


def _when_read(
    hub: Any, act: Callable[[], None], keep: Callable[[Any], None] = lambda _timer: None
) -> None:
    """Do it when the loop has run for a while: it has read all that there was.

    ``keep`` is given each timer.
    """
    due = time.monotonic() + _READ

    def late() -> None:
        if time.monotonic() > due + _READ:  # the loop stood still again
            _when_read(hub, act, keep)
        else:
            act()

    keep(hub.call_later(_READ, late))


def _async_pool() -> Any:
    return import_module("celery.concurrency.asynpool").AsynPool
