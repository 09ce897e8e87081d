"""Test mails: to whom they may go, and what the relay said.

Owns the allow-list and one pool of connections. Sends by the product's own way and
one at a time; never retries, never writes a journal, never logs an address.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mailgate.config.relays import Secret
from mailgate.config.shape import Config
from mailgate.config.terms import receives
from mailgate.model import outcome as outcomes
from mailgate.model.address import Address, AddressError, wire_form
from mailgate.model.message import Envelope
from mailgate.model.outcome import Outcome, Reply, Scope
from mailgate.model.state import Phase
from mailgate.smtp.pool import Pool
from mailgate.studio.workshop import Made

_log = logging.getLogger(__name__)

#: A person waits for the answer: shorter than the RFC's ten minutes (seconds).
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Way:
    """How test mails would go; ``why_not`` says why none can, when none can."""

    relay: str
    host: str
    sender: Address | None
    mail_from: str
    allowed: tuple[str, ...]
    local: bool
    why_not: str


def way(config: Config, *, local: bool, fault: str = "") -> Way:
    """The way of the default stream. ``local``: the embedded inbox is the only relay.

    ``fault`` is why the relays cannot be used, such as a password that is missing.
    """
    stream = config.streams[config.default_stream]
    names = stream.relays or tuple(config.relays)
    relay = names[0] if names else ""
    sender = stream.sender
    mail_from = stream.envelope_from
    if mail_from is None:
        mail_from = sender.email if sender else ""
    why_not = fault
    if not relay:
        why_not = "no relay is configured"
    elif sender is None:
        why_not = f"streams.{config.default_stream}.from is not set: a mail needs a sender"
    elif not local and not config.studio.send_test:
        why_not = (
            "the configuration allows nobody: list addresses, or '*@example.com', "
            "in studio.send_test"
        )
    host = f"{config.relays[relay].host}:{config.relays[relay].port}" if relay else ""
    return Way(relay, host, sender, mail_from, config.studio.send_test, local, why_not)


def refusal(email: str, allowed: Sequence[str], *, everybody: bool) -> str | None:
    """Why no test mail may go to ``email`` (in wire form), or ``None`` when one may."""
    if everybody:
        return None
    if receives(email, allowed):
        return None
    return f"test mails may go to {', '.join(allowed)} only (studio.send_test)"


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a test mail: an outcome, or the reason why nothing was tried."""

    outcome: Outcome | None = None
    refused: str = ""
    made: Made | None = None
    seconds: float = 0.0


class _Marks:
    """The session's marks for a mail that nobody tries again."""

    def __init__(self) -> None:
        self.past_dot = False

    def dot(self) -> None:
        self.past_dot = True

    def accepted(self) -> None: ...

    def refused(self) -> None: ...


class Counter:
    """Where test mails are posted. Belongs to the event loop that it is used on."""

    def __init__(self, config: Config, passwords: Mapping[str, Secret], way: Way) -> None:
        self.way = way
        self._sandbox = config.sandbox
        self._pool = Pool({} if way.why_not else config.relays, passwords, rules=config.rules)
        self._one = asyncio.Lock()

    async def post(self, to: str, make: Callable[[Address, Address], Made]) -> Sent:
        """Send what ``make(sender, to)`` gives, if ``to`` is one who may get it."""
        way = self.way
        if way.why_not or way.sender is None:
            return Sent(refused=way.why_not)
        try:
            address = Address(wire_form(to.strip()))
        except AddressError as error:
            return Sent(refused=f"that is no address: {error}")
        why = refusal(address.email, way.allowed, everybody=way.local) or self._kept_in(address)
        if why is not None:
            return Sent(refused=why)
        made = await asyncio.to_thread(make, way.sender, address)
        if made.content is None:
            return Sent(refused="there is no mail to send", made=made)
        async with self._one:
            began = time.monotonic()
            outcome = await self._deliver(Envelope(way.mail_from, address.email, made.content))
        seconds = time.monotonic() - began
        _log.info(
            "test mail", extra={"relay": way.relay, "outcome": outcome.kind, "seconds": seconds}
        )
        return Sent(outcome, made=made, seconds=seconds)

    def _kept_in(self, address: Address) -> str | None:
        """Outside production the sandbox holds for test mails as well."""
        sandbox = self._sandbox
        if sandbox.mode == "off" or self.way.local or receives(address.email, sandbox.allow):
            return None
        return f"sandbox.mode is '{sandbox.mode}', and sandbox.allow does not name that address"

    async def _deliver(self, envelope: Envelope) -> Outcome:
        marks = _Marks()
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._pool.deliver(self.way.relay, envelope, marks)
        except TimeoutError:
            said = f"the relay did not answer within {PATIENCE:.0f} s"
            if marks.past_dot:
                return outcomes.uncertain(said)
            return outcomes.untouched(Phase.BODY, Reply(0, said), "timeout", Scope.RELAY)

    async def close(self) -> None:
        await self._pool.close(0.5)
