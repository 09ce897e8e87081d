"""Looking things up for people: lists, counts and the whole story of one message.

Owns the filter that every face shares and its SQL. Only reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mailgate.journal.tables import attempts, buckets, events, leases, messages, parked, recipients
from mailgate.model.state import RESENDABLE, WAITING, State

#: What operators look at: everything that did not go well.
TROUBLE = (State.BOUNCED, State.FAILED, State.UNCERTAIN, State.HELD, State.EXPIRED)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recipients are meant; everything that is set must hold. Times in ms."""

    states: tuple[State, ...] = ()
    messages: tuple[int, ...] = ()
    producer: str | None = None
    stream: str | None = None
    template: str | None = None
    tag: str | None = None
    recipient: str | None = None
    domain: str | None = None
    error_class: str | None = None
    key: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def narrow(self) -> bool:
        """Whether it says more than a state: what a change of many must at least say."""
        said = (self.messages, self.producer, self.stream, self.template, self.tag)
        more = (self.recipient, self.domain, self.error_class, self.key, self.since, self.until)
        return any(said) or any(value is not None for value in more)


@dataclass(frozen=True, slots=True)
class Found:
    """One recipient with its message, as lists show it."""

    recipient_id: int
    message_id: int
    producer: str
    stream: str
    template: str | None
    email: str
    state: State
    error_class: str
    attempts: int
    accepted_at: int
    changed_at: int
    due_at: int


def where(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    """The conditions of a filter over ``recipients`` joined with ``messages``."""
    r, m = recipients.c, messages.c
    out: list[sa.ColumnElement[bool]] = []
    if wanted.states:
        # Literals: a partial index is used only when the query spells its condition.
        out.append(r.state.in_([sa.literal_column(f"'{State(s).value}'") for s in wanted.states]))
    if wanted.messages:
        out.append(r.message_id.in_(wanted.messages))
    if wanted.recipient is not None:
        out.append(sa.func.lower(r.email) == wanted.recipient.lower())
    if wanted.domain is not None:
        out.append(r.email.like("%@" + _like(wanted.domain.lower()), escape="\\"))
    if wanted.error_class is not None:
        out.append(r.error_class == wanted.error_class)
    for column, value in (
        (m.producer, wanted.producer),
        (m.stream, wanted.stream),
        (m.template, wanted.template),
    ):
        if value is not None:
            out.append(column == value)
    if wanted.key is not None:
        out.append(m.identity == f"key:{wanted.key}")
    if wanted.tag is not None:
        out.append(m.tags.like("%" + _like(json.dumps(wanted.tag)) + "%", escape="\\"))
    if wanted.since is not None:
        out.append(m.accepted_at >= wanted.since)
    if wanted.until is not None:
        out.append(m.accepted_at < wanted.until)
    return out


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def find(connection: sa.Connection, wanted: Filter, limit: int, before: int | None) -> list[Found]:
    """The newest recipients first; ``before`` is the last recipient id of the page before."""
    query = _found(wanted).order_by(recipients.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(recipients.c.id < before)
    return [_row(row) for row in connection.execute(query)]


def ids(connection: sa.Connection, wanted: Filter, limit: int, after: int = 0) -> list[int]:
    """The recipients that are meant, oldest first; ``after`` is the last of the page before."""
    query = (
        sa.select(recipients.c.id)
        .join(messages, messages.c.id == recipients.c.message_id)
        .where(*where(wanted), recipients.c.id > after)
        .order_by(recipients.c.id)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def count(connection: sa.Connection, wanted: Filter) -> int:
    query = (
        sa.select(sa.func.count())
        .select_from(recipients.join(messages, messages.c.id == recipients.c.message_id))
        .where(*where(wanted))
    )
    return int(connection.execute(query).scalar_one())


def _found(wanted: Filter) -> sa.Select[Any]:
    r, m = recipients.c, messages.c
    return (
        sa.select(
            r.id,
            r.message_id,
            m.producer,
            m.stream,
            m.template,
            r.email,
            r.state,
            r.error_class,
            r.attempts,
            m.accepted_at,
            r.changed_at,
            r.due_at,
        )
        .join(m.id.table, m.id == r.message_id)
        .where(*where(wanted))
    )


def _row(row: Any) -> Found:
    return Found(
        row.id,
        row.message_id,
        row.producer,
        row.stream,
        row.template,
        row.email,
        State(row.state),
        row.error_class or "",
        row.attempts,
        row.accepted_at,
        row.changed_at,
        row.due_at,
    )


def failure_groups(connection: sa.Connection, wanted: Filter) -> list[dict[str, Any]]:
    """Trouble by state, class and template: how many, and one example's last reply."""
    r, m = recipients.c, messages.c
    query = (
        sa.select(
            r.state,
            r.error_class,
            m.template,
            sa.func.count().label("count"),
            sa.func.max(r.changed_at).label("latest"),
            sa.func.max(r.id).label("example"),
        )
        .join(messages, m.id == r.message_id)
        .where(*where(wanted))
        .group_by(r.state, r.error_class, m.template)
        .order_by(sa.desc("count"))
    )
    groups = []
    for row in connection.execute(query).all():
        reply = connection.execute(
            sa.select(attempts.c.code, attempts.c.reply)
            .where(attempts.c.recipient_id == row.example)
            .order_by(attempts.c.id.desc())
            .limit(1)
        ).first()
        groups.append(
            {
                "state": row.state,
                "error_class": row.error_class or "",
                "template": row.template,
                "count": row.count,
                "latest_at": row.latest,
                "reply": f"{reply.code} {reply.reply}" if reply else "",
            }
        )
    return groups


def story(connection: sa.Connection, message_id: int) -> dict[str, Any] | None:
    """Everything that is known of one message, or None."""
    head = connection.execute(sa.select(messages).where(messages.c.id == message_id)).first()
    if head is None:
        return None
    people = connection.execute(
        sa.select(recipients).where(recipients.c.message_id == message_id).order_by("n")
    ).all()
    numbers = [p.id for p in people]
    tried = connection.execute(
        sa.select(attempts).where(attempts.c.recipient_id.in_(numbers)).order_by(attempts.c.id)
    ).all()
    told = connection.execute(
        sa.select(events).where(events.c.message_id == message_id).order_by(events.c.id)
    ).all()
    aside = connection.execute(
        sa.select(parked.c.id, parked.c.kind, parked.c.state, parked.c.faults).where(
            parked.c.message_id == message_id
        )
    ).all()
    return {
        "message": dict(head._mapping),
        "recipients": [dict(p._mapping) for p in people],
        "attempts": [dict(a._mapping) for a in tried],
        "events": [dict(e._mapping) for e in told],
        "parked": [dict(a._mapping) for a in aside],
    }


def overview(connection: sa.Connection, now: int) -> dict[str, Any]:
    """The dashboard: states, waiting by lane with the oldest due, workers, what is parked."""
    r, b = recipients.c, buckets.c
    states = connection.execute(
        sa.select(r.state, sa.func.count().label("number")).group_by(r.state).order_by(r.state)
    ).all()
    waiting: list[sa.ColumnElement[str]] = [
        sa.literal_column(f"'{s.value}'") for s in sorted(WAITING)
    ]
    lanes = connection.execute(
        sa.select(
            b.lane,
            sa.func.count().label("waiting"),
            sa.func.sum(sa.case((r.due_at <= now, 1), else_=0)).label("due"),
            sa.func.min(r.due_at).label("oldest"),
        )
        .join(buckets, b.id == r.bucket_id)
        .where(r.state.in_(waiting))
        .group_by(b.lane)
    ).all()
    alive = connection.execute(sa.select(leases).order_by(leases.c.id)).all()
    aside = connection.execute(
        sa.select(sa.func.count()).select_from(parked).where(parked.c.state == "parked")
    ).scalar_one()
    return {
        "states": {row.state: row.number for row in states},
        "lanes": {
            row.lane: {
                "waiting": row.waiting,
                "due": int(row.due or 0),
                "oldest_due_s": max(0, now - row.oldest) / 1000 if row.oldest else 0,
            }
            for row in lanes
        },
        "workers": [
            {
                "host": row.host,
                "pid": row.pid,
                "beat_s": max(0, now - row.beat_at) / 1000,
                "started_at": row.started_at,
            }
            for row in alive
        ],
        "parked": aside,
    }


def parked_rows(
    connection: sa.Connection, states: Sequence[str], limit: int, before: int | None
) -> list[dict[str, Any]]:
    """What is parked, newest first, without the bytes."""
    columns = [c for c in parked.c if c.name != "body"]
    query = sa.select(*columns, sa.func.length(parked.c.body).label("bytes"))
    query = query.where(parked.c.state.in_(states)).order_by(parked.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(parked.c.id < before)
    return [dict(row._mapping) for row in connection.execute(query)]


def parked_row(connection: sa.Connection, number: int) -> dict[str, Any] | None:
    row = connection.execute(sa.select(parked).where(parked.c.id == number)).first()
    return dict(row._mapping) if row else None


def resendable(states: Sequence[State]) -> tuple[State, ...]:
    """Those of ``states`` (all when empty) that can be sent again."""
    return tuple(s for s in (states or TROUBLE) if s in RESENDABLE)
