"""Kept connections to every relay, for one event loop.

Owns the one door to SMTP: a relay's name and an envelope in, an outcome out.
Never reads a password from anywhere, and never tries a message twice that a relay
may have accepted.
"""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections.abc import Callable, Mapping
from functools import partial

from mailgate.config.relays import Relay, Secret
from mailgate.config.rules import Rule
from mailgate.model.message import Envelope
from mailgate.model.outcome import Kind, Outcome, Scope
from mailgate.smtp.classify import table_for
from mailgate.smtp.desk import Desk, Kept, PoolStats
from mailgate.smtp.line import Line, Ride
from mailgate.smtp.seats import Seats
from mailgate.smtp.session import Gate, Marker

__all__ = ["Gate", "Pool", "PoolStats"]


class Pool:
    """Connections to every relay.

    ``passwords`` holds the secret of each relay that has a username.
    ``hostname`` is said in EHLO where the relay's section names none. ``kept`` tells of
    each relay how many of its connections only urgent mail may use, ``seats`` of some who
    counts them over several processes, ``rules`` what its
    refusals mean before the built-in ones do. Raises
    ``ValueError`` when a password is missing, ``OSError`` when a ``ca_file``
    cannot be read.
    """

    def __init__(
        self,
        relays: Mapping[str, Relay],
        passwords: Mapping[str, Secret],
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
        hostname: str | None = None,
        kept: Mapping[str, int] | None = None,
        seats: Mapping[str, Seats] | None = None,
        rules: Mapping[str, Rule] | None = None,
    ) -> None:
        self._clock, self._random, self._hostname = clock, random, hostname
        self._desks: dict[str, Desk] = {}
        # Who is not urgent waits here, and never stands before urgent mail at a desk.
        self._plain: dict[str, Line] = {}
        self.add(relays, passwords, kept=kept, seats=seats, rules=rules)

    def add(
        self,
        relays: Mapping[str, Relay],
        passwords: Mapping[str, Secret],
        *,
        kept: Mapping[str, int] | None = None,
        seats: Mapping[str, Seats] | None = None,
        rules: Mapping[str, Rule] | None = None,
    ) -> None:
        """Desks for relays that have none yet; all, or none when it raises what ``Pool`` raises."""
        missing = [name for name, r in relays.items() if r.username and name not in passwords]
        if missing:
            raise ValueError(f"no password for {', '.join(missing)}")
        desks = {
            name: Desk(
                relay,
                passwords.get(name),
                self._clock,
                self._random,
                self._hostname,
                table_for(rules or {}, name),
                (seats or {}).get(name),
            )
            for name, relay in relays.items()
        }
        self._desks |= desks
        self._plain |= {
            name: Line(max(1, relay.max_connections - (kept or {}).get(name, 0)))
            for name, relay in relays.items()
        }

    def read_by(self, rules: Mapping[str, Rule]) -> None:
        """Say by other rules what refusals mean, on open connections too."""
        for name, desk in self._desks.items():
            desk.read_by(table_for(rules, name))

    async def deliver(
        self,
        relay: str,
        envelope: Envelope,
        marker: Marker,
        gate: Gate | None = None,
        *,
        urgent: bool = False,
    ) -> Outcome:
        """Send one message through ``relay`` and say what came of it.

        Waits its turn for a connection, then for ``gate`` (a rate limit's moment),
        which may refuse by raising: nothing was said then. Mail without a gate, while
        it waits, may have its commands sent with the dot of the message before it.
        ``urgent`` mail may use the
        connections that are kept for it. Raises ``KeyError`` for an
        unknown relay and what ``marker`` and ``gate`` raise; all else is an outcome.
        May be cancelled: the connection is aborted, and whether the dot had gone is
        what ``marker`` was told.
        """
        desk, line = self._desks[relay], self._plain[relay]
        if urgent:
            # Nobody rides behind it: that connection may be one that is kept.
            return await _deliver(desk, None, envelope, marker, gate)
        ride = None
        if not line.enter():
            # A paced message says MAIL at its own moment, not when another one is read.
            ride = await line.wait(desk, envelope if gate is None else None)
        try:
            return await _deliver(desk, line, envelope, marker, gate, ride)
        finally:
            line.leave()

    async def close(self, grace: float) -> None:
        """Take nothing more, let conversations end for ``grace`` seconds, then abort them."""
        await asyncio.gather(*(desk.close(grace) for desk in self._desks.values()))

    @property
    def busy(self) -> int:
        """Messages that have a connection now, to all relays together."""
        return sum(desk.busy for desk in self._desks.values())

    def stats(self) -> dict[str, PoolStats]:
        """By relay."""
        return {name: desk.stats() for name, desk in self._desks.items()}


async def _deliver(
    desk: Desk,
    line: Line | None,
    envelope: Envelope,
    marker: Marker,
    gate: Gate | None,
    ride: Ride | None = None,
) -> Outcome:
    kept: Kept | Outcome = ride.kept if ride is not None else await desk.take()
    if isinstance(kept, Outcome):
        return kept
    outcome = await _send(desk, line, kept, envelope, marker, gate, ride)
    if not kept.session.unheard(outcome):
        return outcome
    # The relay had closed this kept connection meanwhile: once more, on a new one.
    again = await desk.take(fresh=True)
    if isinstance(again, Outcome):
        # There is none: the first try is what happened to this message.
        return outcome
    return await _send(desk, line, again, envelope, marker, gate)


async def _send(
    desk: Desk,
    line: Line | None,
    kept: Kept,
    envelope: Envelope,
    marker: Marker,
    gate: Gate | None,
    ride: Ride | None = None,
) -> Outcome:
    session = kept.session
    follow = None if line is None else partial(line.follower, desk, kept)
    try:
        if ride is not None:
            outcome = await session.ride(envelope, ride.due, marker, follow)
        else:
            outcome = await session.send(envelope, marker, gate, follow)
        if outcome.kind is Kind.UNTOUCHED and outcome.scope is Scope.RELAY:
            session.abort()
            desk.turned_away(outcome)
        return outcome
    finally:
        if line is None:
            desk.give_back(kept)
        else:
            line.step_off(desk, kept)
