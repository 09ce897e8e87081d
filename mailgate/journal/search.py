"""Looking things up for people: lists, counts and the whole story of one message.

Only reads. Which recipients are meant is said by a filter (``journal.filters``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mailgate.journal.digest_list import digest_of, items_of
from mailgate.journal.filters import TROUBLE, Filter
from mailgate.journal.matching import where
from mailgate.journal.outbox import published_at
from mailgate.journal.tables import attempts, buckets, events, messages, parked, recipients
from mailgate.model.state import RESENDABLE, State


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


def find(connection: sa.Connection, wanted: Filter, limit: int, before: int | None) -> list[Found]:
    """The newest recipients first; ``before`` is the last recipient id of the page before."""
    query = _found(connection, wanted).order_by(recipients.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(recipients.c.id < before)
    return [_row(row) for row in connection.execute(query)]


def ids(connection: sa.Connection, wanted: Filter, limit: int, after: int = 0) -> list[int]:
    """The recipients that are meant, oldest first; ``after`` is the last of the page before."""
    query = (
        sa.select(recipients.c.id)
        .join(messages, messages.c.id == recipients.c.message_id)
        .where(*where(connection, wanted), recipients.c.id > after)
        .order_by(recipients.c.id)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def by_key(connection: sa.Connection, key: str, producer: str | None) -> list[tuple[int, str]]:
    """The messages that have a producer's key or id, each with its producer."""
    m = messages.c
    # A place that waits for its message has no recipients.
    named = sa.or_(m.identity == f"key:{key}", m.own_id == key)
    query = sa.select(m.id, m.producer).where(named, m.recipients > 0)
    if producer is not None:
        query = query.where(m.producer == producer)
    return [(row.id, row.producer) for row in connection.execute(query.order_by(m.id))]


def count(connection: sa.Connection, wanted: Filter) -> int:
    query = (
        sa.select(sa.func.count())
        .select_from(recipients.join(messages, messages.c.id == recipients.c.message_id))
        .where(*where(connection, wanted))
    )
    return int(connection.execute(query).scalar_one())


def held_for(connection: sa.Connection, error_classes: Sequence[str]) -> list[str]:
    """The templates that held recipients wait for, by why they are held."""
    query = (
        sa.select(messages.c.template)
        .distinct()
        .join(recipients, messages.c.id == recipients.c.message_id)
        .where(
            *where(connection, Filter(states=(State.HELD,))),
            recipients.c.error_class.in_(error_classes),
        )
    )
    return sorted(name for name in connection.execute(query).scalars() if name is not None)


def routes(connection: sa.Connection, wanted: Filter) -> list[tuple[tuple[str, ...], int]]:
    """By which relays, in order, the recipients would go, and how many."""
    query = (
        sa.select(buckets.c.route, sa.func.count())
        .select_from(recipients)
        .join(messages, messages.c.id == recipients.c.message_id)
        .join(buckets, buckets.c.id == recipients.c.bucket_id)
        .where(*where(connection, wanted))
        .group_by(buckets.c.route)
    )
    return [(tuple(route.split(",")), number) for route, number in connection.execute(query)]


#: By what recipients can be counted.
GROUPS = ("state", "producer", "stream", "template", "error_class", "lane", "relay", "domain")


def counts(connection: sa.Connection, wanted: Filter, by: Sequence[str]) -> list[dict[str, Any]]:
    """How many recipients there are in each group, the most first.

    ``by`` names columns out of ``GROUPS``. A recipient's ``relay`` is that of its last
    attempt, None before the first.
    """
    r, m = recipients.c, messages.c
    # By n: for the last id PostgreSQL walks the primary key, once for each recipient.
    last = (
        sa.select(attempts.c.relay)
        .where(attempts.c.recipient_id == r.id)
        .order_by(attempts.c.n.desc())
        .limit(1)
        .scalar_subquery()
    )
    after_at = (
        sa.func.substr(r.email, sa.func.instr(r.email, "@") + 1)
        if connection.dialect.name == "sqlite"
        else sa.func.split_part(r.email, "@", 2)
    )
    known: dict[str, sa.ColumnElement[Any]] = {
        "state": r.state,
        "producer": m.producer,
        "stream": m.stream,
        "template": m.template,
        "error_class": r.error_class,
        "lane": buckets.c.lane,
        "relay": last,
        "domain": after_at,
    }
    each = (
        sa.select(*(known[name].label(name) for name in by))
        .select_from(recipients)
        .join(messages, m.id == r.message_id)
        .join(buckets, buckets.c.id == r.bucket_id)
        .where(*where(connection, wanted))
        .subquery()
    )
    number = sa.func.count().label("count")
    query = sa.select(*each.c, number).group_by(*each.c).order_by(number.desc(), *each.c)
    return [dict(row._mapping) for row in connection.execute(query)]


def _found(connection: sa.Connection, wanted: Filter) -> sa.Select[Any]:
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
        .where(*where(connection, wanted))
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
        .where(*where(connection, wanted))
        .group_by(r.state, r.error_class, m.template)
        .order_by(sa.desc("count"))
    )
    groups = []
    for row in connection.execute(query).all():
        reply = connection.execute(
            sa.select(attempts.c.code, attempts.c.reply)
            .where(attempts.c.recipient_id == row.example)
            .order_by(attempts.c.n.desc())
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
        sa.select(recipients, buckets.c.lane, buckets.c.route)
        .join(buckets, buckets.c.id == recipients.c.bucket_id)
        .where(recipients.c.message_id == message_id)
        .order_by("n")
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
        "published": published_at(connection, head.producer, [(e.id, e.at) for e in told]),
        "parked": [dict(a._mapping) for a in aside],
        "digests": digest_of(connection, [dict(p._mapping) for p in people]),
        "items": items_of(connection, message_id),
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
