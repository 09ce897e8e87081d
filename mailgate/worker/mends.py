"""Mends of kombu's Redis transport, each narrow and for the versions that need it.

Owns the change of other people's code at run time; there is none elsewhere in
this package. Never changes a version that it was not tested with: a newer kombu
runs as it is, and ``tests/integration/worker`` says whether it survives.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

#: The kombu that was seen to fail without the mend.
_TESTED = ("5.7.",)


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
