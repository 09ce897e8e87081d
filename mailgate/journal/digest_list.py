"""Digests as people see them: what gathers, which digest an item is in, sending one now.

Owns the look-ups and the hurrying. Never closes a digest: a worker does, when it is due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mailgate.journal.surgery import Act, audit
from mailgate.journal.tables import digest_items, digests, messages, recipients
from mailgate.model.state import State


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which digests are meant; what is None means any."""

    id: int | None = None
    name: str | None = None
    key: str | None = None

    def where(self) -> list[sa.ColumnElement[bool]]:
        d = digests.c
        asked = ((d.id, self.id), (d.name, self.name), (d.key, self.key))
        return [column == value for column, value in asked if value is not None]


def gathering(connection: sa.Connection, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
    """The digests that gather, the next to go first, with the address that each is for.

    ``items`` counts what still waits: what was cancelled meanwhile is not in it.
    """
    d, i, r = digests.c, digest_items.c, recipients.c
    waits = (i.digest_id == d.id, r.id == i.recipient_id, r.state == State.GATHERING.value)
    last = sa.select(sa.func.max(i.recipient_id)).where(*waits).scalar_subquery()
    number = sa.select(sa.func.count()).where(*waits).scalar_subquery()
    query = (
        sa.select(
            d.id, d.name, d.producer, d.key, d.throttled, d.opened_at, d.due_at,
            number.label("items"), last.label("last"),
        )
        .where(*wanted.where())
        .order_by(d.due_at, d.id)
        .limit(limit)
    )  # fmt: skip
    rows = [dict(row._mapping) for row in connection.execute(query)]
    ids = [row["last"] for row in rows if row["last"] is not None]
    known = connection.execute(sa.select(r.id, r.email).where(r.id.in_(ids)))
    emails = {row.id: row.email for row in known}
    return [{**row, "email": emails.get(row.pop("last"))} for row in rows]


def hurry(connection: sa.Connection, wanted: Wanted, act: Act, now: int) -> int:
    """Have the digests that are meant go now; gives how many do."""
    found = connection.execute(
        digests.update().where(*wanted.where(), digests.c.due_at > now).values(due_at=now)
    )
    if found.rowcount:
        audit(connection, act, found.rowcount, now)
    return found.rowcount


def abandoned(connection: sa.Connection, recipient_ids: Sequence[int], now: int) -> None:
    """Have the digests of these items looked at now: perhaps nothing is left in them."""
    of = sa.select(digest_items.c.digest_id).where(digest_items.c.recipient_id.in_(recipient_ids))
    connection.execute(digests.update().where(digests.c.id.in_(of)).values(due_at=now))


def standing(connection: sa.Connection) -> dict[str, Any]:
    """How many digests gather, and when the next goes (ms)."""
    d = digests.c
    row = connection.execute(sa.select(sa.func.count().label("n"), sa.func.min(d.due_at))).one()
    return {"gathering": row[0], "next_due_at": row[1]}


def digest_of(
    connection: sa.Connection, people: Sequence[Mapping[str, Any]]
) -> dict[int, dict[str, Any]]:
    """The digest that each of these recipients is in, or went in: its id, and what gathers.

    ``people`` are rows of recipients; only those that gather or are digested are in one.
    """
    inside = (State.GATHERING.value, State.DIGESTED.value)
    ids = [p["id"] for p in people if p["state"] in inside]
    if not ids:
        return {}
    query = (
        sa.select(
            digest_items.c.recipient_id, digest_items.c.digest_id,
            digests.c.name, digests.c.key, digests.c.due_at,
        )
        .outerjoin(digests, digests.c.id == digest_items.c.digest_id)
        .where(digest_items.c.recipient_id.in_(ids))
    )  # fmt: skip
    return {row.recipient_id: dict(row._mapping) for row in connection.execute(query)}


def items_of(connection: sa.Connection, message_id: int) -> list[dict[str, Any]]:
    """The items that went into a digest, the oldest first; empty for any other message."""
    r = recipients.c
    query = (
        sa.select(r.message_id, r.id, digest_items.c.item, messages.c.accepted_at)
        .join(recipients, r.id == digest_items.c.recipient_id)
        .join(messages, messages.c.id == r.message_id)
        .where(digest_items.c.digest_id == message_id, r.state == State.DIGESTED.value)
        .order_by(r.id)
    )
    return [dict(row._mapping) for row in connection.execute(query)]
