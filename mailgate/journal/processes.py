"""Which processes run, by which configuration, and the request to read it again.

Owns the table ``processes`` and the request among the facts. Of a worker process its
lease says whether it lives. Never reads a configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from mailgate.journal.surgery import Act, audit
from mailgate.journal.tables import facts, leases, processes

_RELOAD = "reload"
#: A row that was seen last so long ago is of a process that left no word (ms).
_GONE = 86_400_000


@dataclass(frozen=True, slots=True)
class Request:
    """That every process read its configuration again: the how many-eth, and when (ms)."""

    number: int = 0
    at: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it wrote itself down.

    ``config`` is the fingerprint of what it runs, in force since ``config_at`` (ms);
    ``answer`` what came of the last request: ``number``, ``result``, ``taken``,
    ``restart``, ``faults``.
    """

    id: int
    kind: str
    host: str
    pid: int
    started_at: int
    config: str
    config_at: int
    answer: Mapping[str, Any] = field(default_factory=dict)
    seen_at: int = 0


def request(connection: sa.Connection, act: Act, now: int) -> Request:
    """Ask every process to read its configuration again; audited."""
    asked = Request(asked_last(connection).number + 1, now)
    value = json.dumps({"number": asked.number, "at": now})
    found = connection.execute(facts.update().where(facts.c.name == _RELOAD).values(value=value))
    if found.rowcount != 1:
        connection.execute(facts.insert().values(name=_RELOAD, value=value))
    audit(connection, act, 1, now)
    return asked


def asked_last(connection: sa.Connection) -> Request:
    """The last request; number 0 when there was none."""
    value = connection.execute(_ASKED, {"name": _RELOAD}).scalar_one_or_none()
    if value is None:
        return Request()
    said = json.loads(value)
    return Request(said["number"], said["at"])


_ASKED = sa.text("SELECT value FROM facts WHERE name = :name")


def write(connection: sa.Connection, process: Process, now: int) -> None:
    """Write a process down as it is now, and forget those that left no word."""
    values: dict[str, Any] = {
        "kind": process.kind,
        "host": process.host[:255],
        "pid": process.pid,
        "started_at": process.started_at,
        "seen_at": now,
        "config": process.config,
        "config_at": process.config_at,
        "answer": json.dumps(dict(process.answer)),
    }
    found = connection.execute(
        processes.update().where(processes.c.id == process.id).values(**values)
    )
    if found.rowcount != 1:
        connection.execute(processes.insert().values(id=process.id, **values))
        connection.execute(
            processes.delete().where(
                processes.c.seen_at < now - _GONE,
                ~sa.exists().where(leases.c.id == processes.c.id),
            )
        )


def seen(connection: sa.Connection, id_: int, now: int) -> None:
    """Say that a process without a lease lives."""
    connection.execute(processes.update().where(processes.c.id == id_).values(seen_at=now))


def remove(connection: sa.Connection, id_: int) -> None:
    connection.execute(processes.delete().where(processes.c.id == id_))


def living(connection: sa.Connection, since: int, worker_since: int) -> list[Process]:
    """Who lives: seen since ``since``, or with a lease that has beaten since ``worker_since``."""
    beat = leases.c.beat_at
    rows = connection.execute(
        sa.select(processes, beat)
        .outerjoin(leases, leases.c.id == processes.c.id)
        .where(
            sa.or_(
                sa.and_(processes.c.kind == "worker", beat >= worker_since),
                sa.and_(processes.c.kind != "worker", processes.c.seen_at >= since),
            )
        )
        .order_by(processes.c.kind.desc(), processes.c.host, processes.c.pid)
    )
    return [
        Process(
            r.id,
            r.kind,
            r.host,
            r.pid,
            r.started_at,
            r.config,
            r.config_at,
            json.loads(r.answer),
            r.beat_at or r.seen_at,
        )
        for r in rows
    ]
