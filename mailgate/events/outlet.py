"""What every way out for events does: take a batch, and say what was not taken.

Owns the protocol. Never knows a broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from mailgate.events.document import Post


class OutletAway(Exception):
    """The broker does not answer, or takes nothing: any of the batch may have arrived."""


class Outlet(Protocol):
    """A connection to one broker. Opens itself when it is used, and anew after trouble."""

    async def open(self) -> None:
        """Make ready what producers read from, before there is anything to read.

        Raises ``OutletAway``.
        """

    async def send(self, posts: Sequence[Post]) -> frozenset[str | None]:
        """Publish in order and wait until the broker has all of it.

        Gives the producers of whose events some were refused while the broker took others;
        raises ``OutletAway``.
        """

    async def beat(self) -> None:
        """Between two batches, often: keep the connection. Raises ``OutletAway``."""

    async def close(self) -> None: ...


def is_amqp(url: str) -> bool:
    return urlsplit(url.split(";")[0]).scheme in ("amqp", "amqps")
