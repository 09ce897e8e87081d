"""Waiting recipients that would stand in the way of others get a bucket of their own.

Owns the labels of such buckets and the move. Without it, a hundred thousand mails to a
destination that takes none now would stand before the one behind them that could go.
Each row is moved once, many in a statement; its state, number and due time stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from mailgate.journal.buckets import BucketKey, ensure_bucket
from mailgate.journal.database import Database
from mailgate.journal.tables import WAITING_SQL
from mailgate.model.state import State
from mailgate.model.value import replace

#: Rows looked at in one statement.
MOST = 2000


class By(StrEnum):
    """What the rows that are put aside have in common."""

    DOMAIN = "domain"
    SENDER = "sender"
    STREAM = "stream"
    TEMPLATE = "template"


_KINDS = frozenset(by.value for by in By)


@dataclass(frozen=True, slots=True)
class Aside:
    """Out of bucket number ``bucket`` goes what has ``name`` as its ``by``."""

    bucket: int
    key: BucketKey
    by: By
    name: str

    @property
    def there(self) -> BucketKey:
        """The bucket that they go to."""
        return replace(self.key, domain=labelled(self.key.domain, self.by, self.name))


def labelled(label: str, by: By, name: str) -> str:
    """``label`` with one more thing that its rows have in common.

    It stands in ``BucketKey.domain``: a domain as it is, all else with its kind. What is
    put aside a second time keeps the first label, so that no row is moved to and fro.
    """
    both = {**dict(meant(label)), by: name}
    return " ".join(
        both[kind] if kind is By.DOMAIN else f"{kind.value}={both[kind]}"
        for kind in By
        if kind in both
    )


def meant(label: str) -> tuple[tuple[By, str], ...]:
    """What a bucket's label says that its rows have in common; nothing for a mixed one."""
    # No domain has a "=" in it, and no name a space.
    parts = (part.partition("=") for part in label.split())
    return tuple((By(kind), name) if mark else (By.DOMAIN, kind) for kind, mark, name in parts)


class Asides:
    def __init__(self, database: Database) -> None:
        # A message's own column, or the end of the recipient's address.
        tests = {by: f"m.{by.value} = :name" for by in By}
        tail = "substr(h.email, -:length)" if database.sqlite else "right(h.email, :length)"
        tests[By.DOMAIN] = f"{tail} = :name"
        lock = "" if database.sqlite else " FOR UPDATE OF r SKIP LOCKED"
        # Fresh mail and retries from their own ends of the index.
        heads = [
            "SELECT * FROM (SELECT r.id, r.email, r.message_id FROM recipients r"
            f" WHERE r.bucket_id = :bucket AND r.state = '{state}' AND r.{WAITING_SQL}"
            f" AND r.due_at <= :now ORDER BY r.due_at, r.id LIMIT {MOST}{lock}) AS {state}_heads"
            for state in (State.QUEUED, State.DEFERRED)
        ]
        head = " UNION ALL ".join(heads)
        self._move = {
            by: sa.text(
                f"WITH head AS MATERIALIZED ({head})"
                " UPDATE recipients SET bucket_id = :to WHERE id IN (SELECT h.id FROM head h"
                + ("" if by is By.DOMAIN else " JOIN messages m ON m.id = h.message_id")
                + f" WHERE {test}) RETURNING id"
            )
            for by, test in tests.items()
        }

    def move(self, connection: sa.Connection, aside: Aside, now: int) -> int:
        """Put aside what stands at the head of a bucket; gives how many rows went."""
        to = ensure_bucket(connection, aside.there)
        values: dict[str, object] = {"bucket": aside.bucket, "to": to, "now": now}
        values["name"] = aside.name
        if aside.by is By.DOMAIN:
            values["name"] = f"@{aside.name}"
            values["length"] = len(aside.name) + 1
        return len(connection.execute(self._move[aside.by], values).all())
