"""What operators have stopped: nothing of it is sent until they resume it.

Owns the table ``pauses``; each change leaves an audit row. Never decides what a pause
holds up: ``dispatch.gate`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from mailgate.journal.surgery import Act, audit
from mailgate.journal.tables import pauses


class What(StrEnum):
    """What can be paused. ``all`` has no name."""

    ALL = "all"
    LANE = "lane"
    PRODUCER = "producer"
    STREAM = "stream"
    RELAY = "relay"
    #: A destination.
    DOMAIN = "domain"
    TEMPLATE = "template"
    #: Does not fire.
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class Pause:
    what: What
    name: str
    since: int
    who: str
    reason: str


def begin(connection: sa.Connection, what: What, name: str, act: Act, now: int) -> bool:
    """Pause it; false when it is paused already, by whomever."""
    known = connection.execute(
        sa.select(pauses.c.kind).where(pauses.c.kind == what.value, pauses.c.name == name)
    ).first()
    if known is not None:
        return False
    connection.execute(
        pauses.insert().values(
            kind=what.value, name=name, since=now, who=act.who[:255], reason=act.reason
        )
    )
    audit(connection, act, 1, now)
    return True


def end(connection: sa.Connection, what: What, name: str, act: Act, now: int) -> bool:
    """Resume it; false when it is not paused."""
    found = connection.execute(
        pauses.delete().where(pauses.c.kind == what.value, pauses.c.name == name)
    )
    if found.rowcount != 1:
        return False
    audit(connection, act, 1, now)
    return True


def standing(connection: sa.Connection) -> list[Pause]:
    """Everything that is paused, oldest first."""
    rows = connection.execute(sa.select(pauses).order_by(pauses.c.since, pauses.c.kind))
    return [Pause(What(r.kind), r.name, r.since, r.who, r.reason) for r in rows]


def names(connection: sa.Connection) -> frozenset[tuple[str, str]]:
    """The same as pairs of kind and name, for every take."""
    rows = connection.execute(_NAMES)
    return frozenset((kind, name) for kind, name in rows)


_NAMES = sa.text("SELECT kind, name FROM pauses")
