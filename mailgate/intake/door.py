"""What every door of intake does: give deliveries, and take back which are done.

Owns the protocol and the waits between attempts to reconnect. Never reads a
body: ``accept`` does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from mailgate.model.value import Value

#: Told about trouble with a broker, in one line without a password.
Trouble = Callable[[str], None]

FIRST_WAIT = 0.1
LONGEST_WAIT = 2.0
#: Bytes that a door gives at once and has in hand, unless it is told otherwise.
BATCH_BYTES = 16 * 2**20


class DoorClosed(Exception):
    """The door was closed; nothing more comes through it."""


class Delivery(Value, frozen=True):
    """One message as the transport gave it.

    ``identity`` is the transport's own and the same on every delivery: the AMQP
    ``message_id``, ``stream:entry-id``, or the UUID given when it was taken off a
    list; None for AMQP without ``message_id``. ``redelivered`` says that it may
    have been delivered before. ``refusal`` is set when the envelope itself is not
    acceptable. ``handle`` is the door's own. ``user_id`` was validated by the
    AMQP broker. ``producer`` is whose own queue it came by, if anyone's.
    ``session`` is new with every connection of an AMQP door: what
    was not acknowledged comes again under another one.
    """

    body: bytes
    source: str
    identity: str | None
    redelivered: bool
    refusal: str | None
    handle: object
    user_id: str | None = None
    session: int | None = None
    producer: str | None = None


class Door(Protocol):
    """A consumer of one queue. One task may receive while others say what is done."""

    async def open(self) -> None:
        """Begin to consume. A broker that is away is no error: the door keeps trying."""

    async def receive(self, most: int, wait: float) -> Sequence[Delivery]:
        """At once what is there, up to ``most``; else the first within ``wait`` seconds.

        What comes together ends when it reaches the door's bytes (a Redis stream is read by
        fours), so that large ones come a few at a time.

        Empty when nothing came or the broker is away. Raises ``DoorClosed``.
        """

    async def done(self, deliveries: Sequence[Delivery]) -> bool | None:
        """Acknowledge what is committed. False when the connection over which it came is gone:
        the broker will deliver again, which the journal absorbs. None when it is acknowledged
        and whether the broker knows cannot be said now: the next True of the same session
        says it, also one to nothing."""

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand back what was not committed, for any consumer; it counts as no failure."""

    async def close(self) -> None:
        """Stop consuming and disconnect; what is neither done nor released comes again."""


class Backoff:
    """Waits between attempts: doubling, capped, each between half and the whole."""

    def __init__(self, first: float = FIRST_WAIT, longest: float = LONGEST_WAIT) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def wait(self) -> float:
        """Seconds to wait before the next attempt."""
        wait = self._next
        self._next = min(self._longest, wait * 2)
        return wait * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It worked: the next trouble starts from the first wait again."""
        self._next = self._first
