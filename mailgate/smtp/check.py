"""A look at one relay without any mail: connect, EHLO, TLS, AUTH, and QUIT.

Owns what such a look reports, step by step. Never keeps the connection, and never says
MAIL.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mailgate.config.relays import Relay, Secret
from mailgate.model.outcome import Outcome
from mailgate.model.state import Phase
from mailgate.smtp.opening import Offers, SetupFailed, tls_context
from mailgate.smtp.session import Session


@dataclass(frozen=True, slots=True)
class Step:
    """One step that worked: what was found there, and how long it took (seconds)."""

    phase: Phase
    found: str
    took: float


@dataclass(frozen=True, slots=True)
class Look:
    """What was found: ``offers`` of the relay when it is ready for mail, else ``failure``.

    ``steps`` are those that worked, in order; under STARTTLS there are two EHLO, and the
    second counts. ``failure.phase`` is the one that did not.
    """

    took: float
    offers: Offers | None = None
    failure: Outcome | None = None
    steps: tuple[Step, ...] = ()


async def look(relay: Relay, password: Secret | None, hostname: str | None = None) -> Look:
    """Open a connection as for mail, by the same code, and end it politely.

    Raises ``OSError`` when a ``ca_file`` cannot be read.
    """
    tls = tls_context(relay)
    begun = last = time.monotonic()
    steps: list[Step] = []

    def watch(phase: Phase, found: str) -> None:
        nonlocal last
        now = time.monotonic()
        steps.append(Step(phase, found, now - last))
        last = now

    try:
        session = await Session.open(relay, tls, password=password, hostname=hostname, watch=watch)
    except SetupFailed as failed:
        return Look(time.monotonic() - begun, failure=failed.outcome, steps=tuple(steps))
    took = time.monotonic() - begun
    await session.quit()
    return Look(took, offers=session.offers, steps=tuple(steps))
