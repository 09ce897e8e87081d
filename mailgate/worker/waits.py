"""Waits of Celery that wait for nothing, and the way around each.

Owns the short cuts by which a worker stops when it is told and replaces a dead child,
and not some seconds later. Never cuts a wait for work.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from billiard import pool as prefork
from celery.concurrency.prefork import TaskPool
from kombu.asynchronous import get_event_loop

#: Seconds in which a child's last word reaches its parent.
_LAST_WORD = 0.1

#: Looks, a tenth of a second apart, whether a parent has read all that a child said.
_HEARD = 10

#: Seconds between two looks for dead children.
_WATCH = 0.5


def watch_children(hub: Any, pool: Any) -> None:
    """Replace a dead child of a prefork pool within a second.

    Its pipes close a moment before it can be waited for. A parent that looks in that
    moment finds it alive, and looks again only after up to five seconds.
    """
    if hub is not None:
        hub.call_repeatedly(_WATCH, pool.maintain_pool)


def maintain(pool: Any) -> None:
    """Replace what has died in a prefork pool that runs, once; other pools have no children."""
    if isinstance(pool, TaskPool) and (replace := getattr(pool, "maintain_pool", None)):
        replace()


def wake_up() -> None:
    """Let Celery's own loop see now that a signal told it to stop.

    The signal's handler sets a flag, and the poll goes on (PEP 475) until the broker
    says something or a timer is due: up to two seconds on RabbitMQ. Called by that
    handler, in which the main thread may hold the loop's lock: hence the thread.
    """
    hub = get_event_loop()
    if hub is not None:
        threading.Thread(target=hub.call_soon, args=(_nothing,), daemon=True).start()


def _nothing() -> None:
    pass


def leave_unheard() -> None:
    """A child that ends waits a second for its parent to have read all its results, not thirty.

    A parent that was told to stop while the last of them was on its way may never read it,
    and then waits itself for the child (``billiard.pool.Worker``). All that is lost is what
    Flower would show of one task.
    """
    prefork.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = _HEARD


def leave_soon(exitcode: int) -> None:
    """End a child of a prefork pool that has nothing left to do.

    billiard sends its last word to the parent and then sleeps for a second.
    """
    timer = threading.Timer(_LAST_WORD, os._exit, [exitcode])
    timer.daemon = True
    timer.start()
