"""One recipient's conversation: render, wait for the permit's moment, send.

Owns the marks around the final dot and the renewal of a permit that came too
late. Gives an outcome for everything that can happen; never writes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from mailgate import failpoints
from mailgate.cancellation import heed
from mailgate.config.sandbox import VIEWER, Sandbox
from mailgate.delivery.lease import ProcessLease
from mailgate.delivery.sandbox import Aside, redirected, way
from mailgate.delivery.spool import Mark
from mailgate.limits.rules import HORIZON, Ask, Grant, Limiter, LimiterAway
from mailgate.model import outcome as outcomes
from mailgate.model.message import Claim, Envelope, Letter
from mailgate.model.outcome import LeaseLost, Outcome, Reply, Scope
from mailgate.model.state import Lane, Phase

#: A conversation that cannot get its permit renewed in this time gives its claim back.
PERMIT_PATIENCE = 5.0
#: A connection is taken in hand this long before the permit's moment (seconds).
AHEAD = 0.05


class Marker(Protocol):
    """Told by the session, in this order, at most one of the last two."""

    def dot(self) -> None: ...
    def accepted(self) -> None: ...
    def refused(self) -> None: ...


Gate = Callable[[], Awaitable[None]]
Render = Callable[[Letter], bytes | Outcome]
#: Waits for room, and gives the claim with what was too heavy to be read before.
Fetch = Callable[[Claim], Awaitable[Claim]]
#: Relay, envelope, marker, gate, and whether it may use what is kept for urgent mail.
Send = Callable[[str, Envelope, Marker, Gate | None, bool], Awaitable[Outcome]]
Trouble = Callable[[str, BaseException], None]


class PermitLost(Exception):
    """No permit could be had in time; nothing was said to the relay."""


@dataclass(slots=True)
class Marks:
    """The conversation's marks in the spool; ``dot`` is the last word before the dot."""

    lease: ProcessLease
    slot: int
    past_dot: bool = False

    def dot(self) -> None:
        if not self.lease.valid:
            raise LeaseLost("the lease has run out")
        if not self.lease.spool.mark(self.slot, Mark.DOT):
            # Whoever sealed the spool judges by what it saw before: take the mark back.
            self.lease.spool.mark(self.slot, Mark.NONE)
            raise LeaseLost("the spool is sealed")
        self.past_dot = True

    def accepted(self) -> None:
        self.lease.spool.mark(self.slot, Mark.ACCEPTED)

    def refused(self) -> None:
        self.lease.spool.mark(self.slot, Mark.REFUSED)


class Unmarked:
    """For what is only shown: that it was is nothing to recover from."""

    def dot(self) -> None: ...
    def accepted(self) -> None: ...
    def refused(self) -> None: ...


@dataclass(slots=True)
class Permit:
    """The grant that a claim came with, and how to ask for another, by the limits of then.

    It is for one MAIL: where a kept connection had died and the message goes out once
    more on a new one, the relay may have counted both.
    """

    grant: Grant
    ask: Callable[[], Ask]
    limiter: Limiter
    used: bool = False

    async def until_near(self) -> None:
        await asyncio.sleep(max(0.0, self.grant.opens - time.monotonic() - AHEAD))

    async def gate(self) -> None:
        """Return when MAIL may be sent, now; raises ``PermitLost``."""
        patience = time.monotonic() + PERMIT_PATIENCE
        grant = await self._renewed(patience) if self.used else self.grant
        while True:
            heed()
            wait = grant.opens - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if time.monotonic() <= grant.closes:
                self.used = True
                return
            grant = await self._renewed(patience)

    async def _renewed(self, patience: float) -> Grant:
        while time.monotonic() < patience:
            heed()
            try:
                [answer] = await self.limiter.reserve([self.ask()], HORIZON)
            except LimiterAway:
                break
            if isinstance(answer, Grant):
                return answer
            await asyncio.sleep(min(answer.wait, 0.5))
        raise PermitLost


async def converse(
    claim: Claim,
    permit: Permit | None,
    marks: Marks,
    render: Render,
    send: Send,
    trouble: Trouble,
    sandbox: Sandbox,
    fetch: Fetch,
) -> tuple[Outcome, bytes | None]:
    """The outcome, and the bytes that were rendered for it.

    Cancelled, it still answers: before the dot nothing was sent, after it the
    outcome is uncertain.
    """
    content: bytes | None = None
    try:
        rendered = await _rendered(claim, render, fetch)
        if isinstance(rendered, Outcome):
            return rendered, None
        content = rendered
        fresh = claim.stored is None
        said = Envelope(claim.mail_from, claim.address.email, content, sound=fresh)
        envelope = way(sandbox, said, claim.attempts)
        if isinstance(envelope, Aside):
            if envelope.shown:
                # Whether it could be shown or not: nobody got it.
                await send(VIEWER, said, Unmarked(), None, False)
            await asyncio.sleep(envelope.seconds)
            return envelope.outcome, content
        if permit is not None:
            await permit.until_near()
        gate = permit.gate if permit is not None else None
        outcome = await send(claim.relay, envelope, marks, gate, claim.lane is Lane.HIGH)
        return (outcome if envelope is said else redirected(outcome)), content
    except LeaseLost as error:
        outcome = _untouched("lease_lost", str(error))
    except PermitLost:
        outcome = _untouched("limit", "no permit in time")
    except asyncio.CancelledError:
        if marks.past_dot:
            why = "stopped while waiting for the reply to the dot"
            outcome = outcomes.uncertain(why, ours="stopped")
        else:
            outcome = _untouched("stopped", "stopped before the dot")
    except Exception as error:  # noqa: BLE001 - a bug must not lose the claim
        trouble("a conversation failed in mailgate itself", error)
        if marks.past_dot:
            why = f"failed after the dot: {type(error).__name__}"
            outcome = outcomes.uncertain(why, ours="internal_error")
        else:
            outcome = outcomes.held("internal_error", type(error).__name__)
    return outcome, content


async def _rendered(claim: Claim, render: Render, fetch: Fetch) -> bytes | Outcome:
    """Of the heavy files nothing is left when this returns but the bytes made of them."""
    if claim.unread:
        claim = await fetch(claim)
    failpoints.hit("render.before")
    return claim.stored if claim.stored is not None else render(claim.letter)


def _untouched(error_class: str, reason: str) -> Outcome:
    return outcomes.untouched(Phase.BODY, Reply(0, reason), error_class, Scope.MESSAGE)
