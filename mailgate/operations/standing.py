"""How relays stand, and pausing and resuming by hand.

Owns what is said of each relay: its breaker, its pause, the destinations and senders
that are left alone there, and how slowly mail goes. Never asks a relay anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailgate.config.shape import Config
from mailgate.journal import pauses
from mailgate.journal.breakers import Breakers, Health
from mailgate.journal.database import Connection, Database
from mailgate.journal.pauses import Pause, What
from mailgate.journal.surgery import Act, audit
from mailgate.limits.breaker import Kind, Subject, rate
from mailgate.model.address import AddressError, wire_form
from mailgate.model.state import Lane


class NotPausable(ValueError):
    """There is no such thing to pause; says what there is."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that is left alone, slowed or paused now."""

    health: Mapping[Subject, Health]
    pauses: Sequence[Pause]
    now: int


def standing(database: Database, config: Config) -> Standing:
    """Read it all; raises ``JournalAway``."""
    breakers = Breakers(database, config.breakers, lambda: 0.5)
    now = database.now()

    def look(connection: Connection) -> Standing:
        return Standing(breakers.view(connection, now), pauses.standing(connection), now)

    return database.read_now(look)


def relays(found: Standing, config: Config) -> list[dict[str, Any]]:
    """One item for each relay of the configuration, and for those known from before."""
    paused = {p.name: p for p in found.pauses if p.what is What.RELAY}
    known = {who.relay for who in found.health} | set(paused)
    names = [*config.relays, *sorted(known - set(config.relays))]
    return [_relay(name, found, config, paused.get(name)) for name in names]


def _relay(name: str, found: Standing, config: Config, pause: Pause | None) -> dict[str, Any]:
    section = config.relays.get(name)
    own = found.health.get(Subject(Kind.RELAY, name))
    item: dict[str, Any] = {"name": name}
    item["host"] = f"{section.host}:{section.port}" if section else None
    item |= _said(own, config, found.now)
    if pause is not None:
        item |= {"state": "paused", "since": pause.since, "until": None}
        item |= {"reason": f"{pause.who}: {pause.reason}", "reply": None}
    item["rate"] = str(section.rate) if section and section.rate else None
    slow = rate(own.record, config.breakers, found.now) if own else None
    item["effective_rate"] = str(slow) if slow else item["rate"]
    others = sorted(found.health.items(), key=lambda one: one[0].key)
    for kind in (Kind.DOMAIN, Kind.SENDER):
        item[f"{kind.value}s"] = [
            {
                "name": who.name,
                **_said(health, config, found.now),
                "effective_rate": _rate(health, config, found.now),
            }
            for who, health in others
            if who.relay == name and who.kind is kind
        ]
    return item


def _said(health: Health | None, config: Config, now: int) -> dict[str, Any]:
    """A breaker's state in words: closed, slowed, open, half-open."""
    blank = {"state": "closed", "since": None, "until": None, "failures": 0}
    blank |= {"reason": None, "reply": None}
    if health is None:
        return blank
    record = health.record
    if record.open:
        waits = now < record.until and not health.probing
        blank |= {"state": "open" if waits else "half-open", "since": record.since}
        blank |= {"until": record.until if waits else None}
    elif rate(record, config.breakers, now) is not None:
        blank |= {"state": "slowed", "since": record.cut_at}
    reply = f"{record.code} {record.reply}" if record.code else record.reply
    blank |= {"failures": record.failures}
    return blank | {"reason": record.error_class or None, "reply": reply or None}


def _rate(health: Health, config: Config, now: int) -> str | None:
    slow = rate(health.record, config.breakers, now)
    return str(slow) if slow else None


def pause(database: Database, config: Config, what: What, name: str, act: Act) -> bool:
    """Send nothing of it until it is resumed; false when it was paused already.

    Raises ``NotPausable``, ``JournalAway``.
    """
    name = checked(config, what, name)
    now = database.now()
    return database.run_now(lambda c: pauses.begin(c, what, name, act, now))


def resume(database: Database, config: Config, what: What, name: str, act: Act) -> tuple[bool, int]:
    """Let it go again; of a relay also what is open there: it is probed at once.

    Gives whether it was paused, and how many breakers are probed.
    """
    now = database.now()
    breakers = Breakers(database, config.breakers, lambda: 0.5)

    def work(connection: Connection) -> tuple[bool, int]:
        was = pauses.end(connection, what, name, act, now)
        if what is not What.RELAY:
            return was, 0
        probed = breakers.hurry(connection, name, now)
        if probed and not was:
            audit(connection, act, probed, now)
        return was, probed

    return database.run_now(work)


def checked(config: Config, what: What, name: str) -> str:
    """The name as it is kept; raises ``NotPausable`` for one that means nothing."""
    known: Sequence[str] | None = None
    match what:
        case What.ALL:
            if name:
                raise NotPausable("all: takes no name")
            return ""
        case What.LANE:
            known = [lane.value for lane in Lane]
        case What.STREAM:
            known = list(config.streams)
        case What.RELAY:
            known = list(config.relays)
        case What.SCHEDULE:
            known = list(config.schedules)
        case What.DOMAIN:
            try:
                return wire_form(f"any@{name}").rpartition("@")[2]
            except AddressError as error:
                raise NotPausable(f"domain {name}: {error}") from None
    if not name:
        raise NotPausable(f"{what.value}: needs a name")
    if known is not None and name not in known:
        there = ", ".join(known) or "none"
        raise NotPausable(f"{what.value} {name}: is not there; there are: {there}")
    return name
