"""The list of suppressions as people see it: finding entries, removing them, cleaning up.

Owns the filter and its SQL. Never decides who is stopped: ``suppressions`` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mailgate.journal.suppressions import Suppression
from mailgate.journal.tables import bounce_hints, suppressions


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry as it stands in the journal."""

    id: int
    entry: Suppression
    created_at: int


@dataclass(frozen=True, slots=True)
class Entries:
    """Which entries are meant; everything that is set must hold. Times in milliseconds.

    ``address`` is folded, or a domain: itself alone, while ``domain`` also means the
    addresses in it. Expired entries are left out unless ``expired`` asks for them alone.
    """

    address: str | None = None
    domain: str | None = None
    producer: str | None = None
    category: str | None = None
    reason: str | None = None
    source: str | None = None
    since: int | None = None
    until: int | None = None
    expired: bool = False

    @property
    def narrow(self) -> bool:
        """Whether it says more than nothing: what a removal must at least say."""
        said = (self.address, self.domain, self.producer, self.category, self.reason)
        more = (self.source, self.since, self.until)
        return any(value is not None for value in said + more) or self.expired


def _where(wanted: Entries, now: int) -> list[sa.ColumnElement[bool]]:
    s = suppressions.c
    out: list[sa.ColumnElement[bool]] = []
    if wanted.expired:
        out.append(s.expires_at <= now)
    else:
        out.append(sa.or_(s.expires_at.is_(None), s.expires_at > now))
    if wanted.domain is not None:
        at = "%@" + wanted.domain.replace("_", "\\_")
        out.append(sa.or_(s.address == wanted.domain, s.address.like(at, escape="\\")))
    for column, value in (
        (s.address, wanted.address),
        (s.producer, wanted.producer),
        (s.category, wanted.category),
        (s.reason, wanted.reason),
        (s.source, wanted.source),
    ):
        if value is not None:
            out.append(column == value)
    if wanted.since is not None:
        out.append(s.created_at >= wanted.since)
    if wanted.until is not None:
        out.append(s.created_at < wanted.until)
    return out


def find(
    connection: sa.Connection, wanted: Entries, now: int, limit: int, after: int = 0
) -> list[Listed]:
    """The entries that are meant, the oldest first; ``after`` is the last id of the page before."""
    query = (
        sa.select(suppressions)
        .where(*_where(wanted, now), suppressions.c.id > after)
        .order_by(suppressions.c.id)
        .limit(limit)
    )
    return [
        Listed(
            row.id,
            Suppression(
                row.address,
                row.reason,
                row.source,
                row.producer,
                row.category,
                row.evidence,
                row.expires_at,
            ),
            row.created_at,
        )
        for row in connection.execute(query)
    ]


def count(connection: sa.Connection, wanted: Entries, now: int) -> int:
    query = sa.select(sa.func.count()).select_from(suppressions).where(*_where(wanted, now))
    return int(connection.execute(query).scalar_one())


def remove(connection: sa.Connection, numbers: Sequence[int]) -> int:
    """Take entries away, and what else was held against their addresses; gives how many."""
    if not numbers:
        return 0
    gone = (
        connection.execute(
            suppressions.delete()
            .where(suppressions.c.id.in_(numbers))
            .returning(suppressions.c.address)
        )
        .scalars()
        .all()
    )
    connection.execute(bounce_hints.delete().where(bounce_hints.c.address.in_(sorted(set(gone)))))
    return len(gone)


def sweep(connection: sa.Connection, now: int, forget: int, most: int) -> int:
    """Delete up to ``most`` entries that have expired, and hints older than ``forget`` (ms).

    Neither has any effect any more; a clean-up by the clock calls this. Gives how many.
    """
    values: Mapping[str, int] = {"now": now, "most": most, "since": now - forget}
    gone = connection.execute(
        sa.text(
            "DELETE FROM suppressions WHERE id IN (SELECT id FROM suppressions"
            " WHERE expires_at <= :now ORDER BY id LIMIT :most)"
        ),
        values,
    ).rowcount
    gone += connection.execute(
        sa.text(
            "DELETE FROM bounce_hints WHERE address IN (SELECT address FROM bounce_hints"
            " WHERE last_at <= :since ORDER BY address LIMIT :most) AND last_at <= :since"
        ),
        values,
    ).rowcount
    return gone
