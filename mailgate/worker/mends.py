"""Mends of Celery and of kombu's Redis transport, each narrow and for the versions that need it.

Owns the change of other people's code at run time; there is none elsewhere in
this package. Never changes a version that it was not tested with: a newer one
runs as it is, and ``tests/integration/worker`` says whether it survives.
"""

from __future__ import annotations

import time
from importlib import import_module
from importlib.metadata import version
from typing import Any

#: The Celery and kombu that were seen to fail without the mends.
_TESTED = ("5.7.",)

#: What a main process has not read yet of its children it has within this (seconds).
_READ = 1.0


def mend_redis_channel() -> bool:
    """Make a channel whose connection is gone say so as a connection error.

    When Redis goes away while a late-acknowledged task runs, closing the consumer's
    connection restores its messages through ``Channel._connparams`` on a channel
    without a connection: an ``AttributeError``, which ends the worker (kombu #582).
    A ``redis.ConnectionError`` is handled there. Returns whether it was needed.
    """
    if not version("kombu").startswith(_TESTED):
        return False
    transport: Any = import_module("kombu.transport.redis")  # its stubs know no channel
    channel = transport.Channel
    original = channel._connparams
    if getattr(original, "mended", False):
        return True

    def _connparams(self: Any, asynchronous: bool = False) -> Any:
        if self.connection is None or self.connection.client is None:
            raise transport.redis.ConnectionError("the channel's connection is closed")
        return original(self, asynchronous=asynchronous)

    _connparams.mended = True  # type: ignore[attr-defined]
    channel._connparams = _connparams
    return True


def mend_time_limits() -> bool:
    """Have a time limit look at what the children said before it ends one of them.

    While the main process waits for its broker it reads no results, and the clock of the
    tasks goes on. After an outage longer than the limit that clock is looked at first: a
    task that was over long ago is found late, and its child, which has other mail in hand
    by now or none, is ended for it. So each limit waits until the loop has run for a while.
    Returns whether it was needed.
    """
    if not version("celery").startswith(_TESTED):
        return False
    pool: Any = import_module("celery.concurrency.asynpool").AsynPool
    get_event_loop: Any = import_module("kombu.asynchronous").get_event_loop
    soft, hard = pool._on_soft_timeout, pool._on_hard_timeout
    if getattr(soft, "mended", False):
        return True

    def patiently(act: Any, self: Any, job: int, *rest: Any) -> None:
        due = time.monotonic() + _READ

        def late() -> None:
            if time.monotonic() > due + _READ:  # the loop stood still again
                patiently(act, self, job, *rest)
            else:
                act(self, job, *rest)

        # Where the pool looks for what is to be cancelled when the task ends.
        self._tref_for_id[job] = get_event_loop().call_later(_READ, late)

    def _on_soft_timeout(self: Any, job: int, *rest: Any) -> None:
        patiently(soft, self, job, *rest)

    def _on_hard_timeout(self: Any, job: int) -> None:
        patiently(hard, self, job)

    _on_soft_timeout.mended = True  # type: ignore[attr-defined]
    pool._on_soft_timeout, pool._on_hard_timeout = _on_soft_timeout, _on_hard_timeout
    return True
