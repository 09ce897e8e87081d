"""What schedules have fired: a row for each time, and the trace of the clock.

Owns the one rule of once: a fire ends in the transaction in which its messages are
written, and only while it is pending. Never says when a schedule fires
(``schedules.fires``), nor what it sends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mailgate.journal.pauses import What
from mailgate.journal.tables import facts, fires, pauses, schedules

#: The sources of these were read, up to their time.
_READ = ("done", "empty")
_PENDING = fires.c.state == "pending"


@dataclass(frozen=True, slots=True)
class Fire:
    """One fire, as it stands; times in milliseconds."""

    schedule: str
    at: int
    state: str
    tries: int
    due_at: int
    changed_at: int
    since: int | None
    messages: int
    recipients: int
    error: str | None


def looked_at(connection: sa.Connection, names: Sequence[str], now: int) -> dict[str, int]:
    """Up to when the fires of schedules are written down; of a new one from now on."""
    known = {
        row.name: row.looked_at
        for row in connection.execute(sa.select(schedules).where(schedules.c.name.in_(names)))
    }
    for name in names:
        if name not in known:
            connection.execute(
                sa.text(
                    "INSERT INTO schedules (name, looked_at) VALUES (:name, :now)"
                    " ON CONFLICT (name) DO NOTHING"
                ),
                {"name": name, "now": now},
            )
            known[name] = now
    return known


def write(connection: sa.Connection, found: Mapping[str, Sequence[int]], now: int) -> None:
    """Write down fires by schedule, each once; those of a paused schedule as skipped."""
    query = sa.select(pauses.c.name).where(pauses.c.kind == What.SCHEDULE.value)
    paused = set(connection.execute(query).scalars())
    for name, times in found.items():
        state = "skipped" if name in paused else "pending"
        for at in times:
            add(connection, name, at, state, now)
        connection.execute(
            schedules.update()
            .where(schedules.c.name == name, schedules.c.looked_at < now)
            .values(looked_at=now)
        )


def add(connection: sa.Connection, name: str, at: int, state: str, now: int) -> bool:
    """Write down one fire; false when it is there."""
    made = connection.execute(
        sa.text(
            "INSERT INTO fires (schedule, at, state, tries, due_at, changed_at, messages,"
            " recipients) VALUES (:name, :at, :state, 0, :now, :now, 0, 0)"
            " ON CONFLICT (schedule, at) DO NOTHING"
        ),
        {"name": name, "at": at, "state": state, "now": now},
    )
    return made.rowcount == 1


def waiting(connection: sa.Connection, names: Sequence[str], now: int) -> list[tuple[str, int]]:
    """What is to be tried now: of each schedule its earliest pending fire, unless it waits.

    In their order, since the window of each begins where the one before it has ended.
    """
    paused = sa.select(pauses.c.name).where(pauses.c.kind == What.SCHEDULE.value)
    query = (
        sa.select(fires.c.schedule, sa.func.min(fires.c.at).label("at"))
        .where(_PENDING, fires.c.schedule.in_(names), fires.c.schedule.not_in(paused))
        .group_by(fires.c.schedule)
    )
    rows = connection.execute(query).all()
    return [
        (row.schedule, row.at)
        for row in rows
        if (found := fire(connection, row.schedule, row.at)) is not None and found.due_at <= now
    ]


def begin(connection: sa.Connection, name: str, at: int, until: int, now: int) -> Fire | None:
    """Take a pending fire that is due, until a time; None when another has it or it is over."""
    taken = connection.execute(
        fires.update()
        .where(fires.c.schedule == name, fires.c.at == at, _PENDING, fires.c.due_at <= now)
        .values(tries=fires.c.tries + 1, due_at=until, changed_at=now)
    )
    return fire(connection, name, at) if taken.rowcount == 1 else None


def read_until(connection: sa.Connection, name: str, before: int) -> tuple[int | None, int | None]:
    """Up to when a schedule's sources were last read before a time; and its first fire."""
    mine = (fires.c.schedule == name, fires.c.at < before)
    read = sa.select(sa.func.max(fires.c.at)).where(*mine, fires.c.state.in_(_READ))
    first = sa.select(sa.func.min(fires.c.at)).where(*mine)
    return connection.execute(read).scalar(), connection.execute(first).scalar()


def told_by(connection: sa.Connection, name: str, at: int) -> int | None:
    """The later fire whose window has this one's in it; None when there is none."""
    query = sa.select(sa.func.min(fires.c.at)).where(
        fires.c.schedule == name, fires.c.at > at, fires.c.state.in_(_READ), fires.c.since < at
    )
    found: int | None = connection.execute(query).scalar()
    return found


def end(
    connection: sa.Connection,
    name: str,
    at: int,
    *,
    since: int,
    messages: int,
    recipients: int,
    now: int,
) -> bool:
    """A fire is done, or found nothing to send; false when it was over before.

    Also when its window is not what it was: another fire of the schedule was carried out
    meanwhile that told a part of it, or all.
    """
    # Fires of one schedule end one after the other.
    looked_at(connection, [name], now)
    connection.execute(sa.select(schedules).where(schedules.c.name == name).with_for_update())
    between = sa.select(fires.c.at).where(
        fires.c.schedule == name,
        fires.c.state.in_(_READ),
        fires.c.at > since,
        fires.c.at < at,
    )
    if connection.execute(between.limit(1)).first() or told_by(connection, name, at) is not None:
        return False
    done = connection.execute(
        fires.update()
        .where(fires.c.schedule == name, fires.c.at == at, _PENDING)
        .values(
            state="done" if messages else "empty",
            since=since,
            messages=messages,
            recipients=recipients,
            error=None,
            changed_at=now,
        )
    )
    return done.rowcount == 1


def release(connection: sa.Connection, name: str, at: int, now: int) -> None:
    """A fire that is pending still is due again."""
    connection.execute(
        fires.update()
        .where(fires.c.schedule == name, fires.c.at == at, _PENDING)
        .values(due_at=now, changed_at=now)
    )


def skip(connection: sa.Connection, name: str, at: int, now: int) -> None:
    """A pending fire is not carried out: another has told what it would have."""
    connection.execute(
        fires.update()
        .where(fires.c.schedule == name, fires.c.at == at, _PENDING)
        .values(state="skipped", error=None, changed_at=now)
    )


def fail(
    connection: sa.Connection, name: str, at: int, error: str, again: int | None, now: int
) -> None:
    """A fire could not be carried out: tried again at a time (ms), or never."""
    connection.execute(
        fires.update()
        .where(fires.c.schedule == name, fires.c.at == at, _PENDING)
        .values(
            state="failed" if again is None else "pending",
            due_at=now if again is None else again,
            error=error,
            changed_at=now,
        )
    )


def revive(connection: sa.Connection, name: str, at: int, now: int) -> Fire:
    """A fire that a person asks for: one that failed or was skipped is pending once more."""
    add(connection, name, at, "pending", now)
    connection.execute(
        fires.update()
        .where(
            fires.c.schedule == name,
            fires.c.at == at,
            fires.c.state.in_(("failed", "skipped", "pending")),
        )
        .values(state="pending", due_at=now, changed_at=now)
    )
    found = fire(connection, name, at)
    assert found is not None
    return found


def fire(connection: sa.Connection, name: str, at: int) -> Fire | None:
    row = connection.execute(
        sa.select(fires).where(fires.c.schedule == name, fires.c.at == at)
    ).first()
    return _fire(row) if row is not None else None


def latest(connection: sa.Connection, name: str, most: int) -> list[Fire]:
    """A schedule's fires, the latest first."""
    query = sa.select(fires).where(fires.c.schedule == name)
    return [_fire(r) for r in connection.execute(query.order_by(fires.c.at.desc()).limit(most))]


def failing(connection: sa.Connection, names: Sequence[str]) -> int:
    """How many of the schedules have a fault with nothing read since."""
    if not names:
        return 0
    read = (
        sa.select(fires.c.schedule, sa.func.max(fires.c.at).label("at"))
        .where(fires.c.state.in_(_READ))
        .group_by(fires.c.schedule)
        .subquery()
    )
    query = (
        sa.select(sa.func.count(fires.c.schedule.distinct()))
        .select_from(fires.outerjoin(read, read.c.schedule == fires.c.schedule))
        .where(
            fires.c.schedule.in_(names),
            fires.c.error.is_not(None),
            fires.c.state.in_(("pending", "failed")),
            fires.c.at > sa.func.coalesce(read.c.at, 0),
        )
    )
    return int(connection.execute(query).scalar_one())


def lapse(connection: sa.Connection, before: int, most: int) -> int:
    """Forget fires from before a time (ms), but for the last that each schedule has read."""
    last = (
        sa.select(fires.c.schedule, sa.func.max(fires.c.at).label("at"))
        .where(fires.c.state.in_(_READ))
        .group_by(fires.c.schedule)
    )
    kept = {(row.schedule, row.at) for row in connection.execute(last)}
    old = connection.execute(
        sa.select(fires.c.schedule, fires.c.at)
        .where(fires.c.at < before, ~_PENDING)
        .limit(most + len(kept))
    ).all()
    gone = [row for row in old if (row.schedule, row.at) not in kept]
    for row in gone:
        connection.execute(
            fires.delete().where(fires.c.schedule == row.schedule, fires.c.at == row.at)
        )
    return len(gone)


def _fire(row: Any) -> Fire:
    return Fire(**row._mapping)


# --- the trace of the clock ------------------------------------------------------------


def beat(connection: sa.Connection, host: str, now: int) -> None:
    """A clock leaves its trace."""
    connection.execute(
        sa.text(
            "INSERT INTO facts (name, value) VALUES ('beat', :value)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        ),
        {"value": json.dumps({"at": now, "host": host})},
    )


def last_beat(connection: sa.Connection) -> int | None:
    """When a clock was last seen (ms), or None for never."""
    value = connection.execute(sa.select(facts.c.value).where(facts.c.name == "beat")).scalar()
    return int(json.loads(value)["at"]) if value else None
