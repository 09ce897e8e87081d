"""What can go wrong when a program publishes.

Owns the exceptions of the client; each carries what its catcher needs to go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailgate.client.events import Event
    from mailgate.contract import Fault


class MailgateError(Exception):
    """Anything that the client raises about a message."""


class InvalidMessage(MailgateError, ValueError):
    """The message breaks the contract: it was not published, and would have been parked.

    ``faults`` names every field with the rule that it breaks.
    """

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


class NotPublished(MailgateError):
    """No broker confirmed the message before the deadline. It may have been taken all the same.

    ``body`` is the document as it would have been published, with its ``idempotency_key``:
    publish it again as it is (``Client.publish_raw``), now or tomorrow, and one mail goes out.
    """

    def __init__(self, reason: str, *, body: bytes, idempotency_key: str) -> None:
        super().__init__(reason)
        self.body = body
        self.idempotency_key = idempotency_key


class NoQueue(NotPublished):
    """The broker is there and the queue is not: mailgate never ran on it."""


class Refused(NotPublished):
    """The broker knows us and says no: wrong password, no permission, no such virtual host."""


class NoAnswer(MailgateError, TimeoutError):
    """What was waited for did not come in time; ``last`` is what was heard of it, if anything.

    It says nothing about the mail: that goes its way, and you can ask again.
    """

    def __init__(self, reason: str, *, last: Event | None = None) -> None:
        super().__init__(reason)
        self.last = last
