"""Kept connections to every relay, for one event loop.

Owns the one door to SMTP: a relay's name and an envelope in, an outcome out.
Never reads a password from anywhere, never loops: one message, one outcome.
"""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections.abc import Callable, Mapping

from mailgate.config.shape import Relay
from mailgate.model.message import Envelope
from mailgate.model.outcome import Outcome
from mailgate.smtp.desk import Desk, Gate, PoolStats
from mailgate.smtp.session import Marker

__all__ = ["Pool", "PoolStats"]


class Pool:
    """Connections to every relay.

    ``passwords`` holds the password of each relay that has a username.
    ``hostname`` is said in EHLO where the relay's section names none. Raises
    ``ValueError`` when a password is missing, ``OSError`` when a ``ca_file``
    cannot be read.
    """

    def __init__(
        self,
        relays: Mapping[str, Relay],
        passwords: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
        hostname: str | None = None,
    ) -> None:
        missing = [name for name, r in relays.items() if r.username and name not in passwords]
        if missing:
            raise ValueError(f"no password for {', '.join(missing)}")
        self._desks = {
            name: Desk(relay, passwords.get(name), clock, random, hostname)
            for name, relay in relays.items()
        }

    async def deliver(
        self, relay: str, envelope: Envelope, marker: Marker, gate: Gate | None = None
    ) -> Outcome:
        """Send one message through ``relay`` and say what came of it.

        Waits its turn for a connection, then for ``gate`` (a rate limit's moment),
        which may refuse by raising: nothing was said then. Raises ``KeyError`` for an unknown relay
        and what ``marker`` and ``gate`` raise; all else is an outcome. May be cancelled: the
        connection is aborted, and whether the dot had gone is what ``marker`` was told.
        """
        return await self._desks[relay].deliver(envelope, marker, gate)

    async def close(self, grace: float) -> None:
        """Take nothing more, let conversations end for ``grace`` seconds, then abort them."""
        await asyncio.gather(*(desk.close(grace) for desk in self._desks.values()))

    def stats(self) -> dict[str, PoolStats]:
        """By relay."""
        return {name: desk.stats() for name, desk in self._desks.items()}
