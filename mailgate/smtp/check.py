"""A look at one relay without any mail: connect, EHLO, TLS, AUTH, and QUIT.

Owns what such a look reports. Never keeps the connection, and never says MAIL.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mailgate.config.relays import Relay, Secret
from mailgate.model.outcome import Outcome
from mailgate.smtp.opening import Offers, SetupFailed, tls_context
from mailgate.smtp.session import Session


@dataclass(frozen=True, slots=True)
class Look:
    """What was found: ``offers`` of the relay when it is ready for mail, else ``failure``."""

    took: float
    offers: Offers | None = None
    failure: Outcome | None = None


async def look(relay: Relay, password: Secret | None, hostname: str | None = None) -> Look:
    """Open a connection as for mail and end it politely.

    Raises ``OSError`` when a ``ca_file`` cannot be read.
    """
    begun = time.monotonic()
    try:
        session = await Session.open(
            relay, tls_context(relay), password=password, hostname=hostname
        )
    except SetupFailed as failed:
        return Look(time.monotonic() - begun, failure=failed.outcome)
    took = time.monotonic() - begun
    await session.quit()
    return Look(took, offers=session.offers)
