"""What gathers for a digest: which digest is open, when it goes, and what is in it.

Owns adding to a digest, in the transaction that puts its recipients into ``gathering``.
A digest that is closed is gone from its table, so who comes later opens the next: the
row's lock parks the one in front of the other. Never closes one: ``journal.digests`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import sqlalchemy as sa

from mailgate.config.digests import Digest
from mailgate.journal.database import Database, packed
from mailgate.journal.inserting import Inserting


@dataclass(frozen=True, slots=True)
class Gather:
    """What a recipient is gathered by; ``digest`` is the section called ``name``.

    ``slot`` tells whose mail it goes into. ``item`` is what the producer calls it. With
    ``due_at`` a throttle turned it away: its count has room then (ms), and is ``slot``.
    """

    slot: str
    name: str
    producer: str
    key: str
    digest: Digest
    item: str | None = None
    due_at: int | None = None

    @property
    def waits(self) -> tuple[int | None, int]:
        """How long a further item puts it off, and its longest wait from the first (ms)."""
        if self.due_at is not None or self.digest.after is None:
            return None, 0
        return int(self.digest.after * 1000), int(self.digest.longest * 1000)


def slot(name: str, producer: str, key: str, email: str) -> str:
    """What stands for one recipient's digest of a name and key."""
    text = "\0".join((name, producer, key, email.casefold()))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


_NEW = {
    "slot": "text",
    "id": "bigint",
    "name": "text",
    "producer": "text",
    "key": "text",
    "throttled": "boolean",
    "due_at": "bigint",
    "items": "bigint",
}


class Gathering:
    def __init__(self, database: Database) -> None:
        names = ", ".join(_NEW)
        least = "min" if database.sqlite else "least"
        self._join = sa.text(
            f"INSERT INTO digests ({names}, opened_at) SELECT {names}, :now"
            f" FROM {database.rows(_NEW)} WHERE true"
            " ON CONFLICT (slot) DO UPDATE SET items = digests.items + excluded.items"
            " RETURNING id, slot"
        )
        # Once it is due nothing puts it off: an operator may have released it.
        row = {"slot": "text", "most": "bigint", "after": "bigint", "longest": "bigint"}
        self._put_off = sa.text(
            "UPDATE digests SET due_at = CASE WHEN digests.due_at <= :now THEN digests.due_at"
            " WHEN digests.items >= v.most THEN :now WHEN v.after IS NULL THEN digests.due_at"
            f" ELSE {least}(digests.opened_at + v.longest, :now + v.after) END"
            f" FROM {database.rows(row)} WHERE digests.slot = v.slot"
        )
        self._items = Inserting(
            database,
            "digest_items",
            {"recipient_id": "bigint", "digest_id": "bigint", "item": "text"},
            tail="ON CONFLICT (recipient_id) DO UPDATE SET digest_id = excluded.digest_id,"
            " item = excluded.item",
        )
        self._open = sa.text(
            "SELECT slot FROM digests WHERE slot IN"
            f" (SELECT slot FROM {database.rows({'slot': 'text'})})"
        )

    def add(
        self,
        connection: sa.Connection,
        wanted: Sequence[tuple[int, Gather]],
        now: int,
        draw: Callable[[], int],
    ) -> None:
        """Note that these recipients are gathered; ``draw`` gives ids for new digests."""
        if not wanted:
            return
        counts: dict[str, int] = {}
        last: dict[str, Gather] = {}
        for _, gather in wanted:
            counts[gather.slot] = counts.get(gather.slot, 0) + 1
            last[gather.slot] = gather
        # Sorted, so that two who write to the same digests lock them in one order.
        ordered = [last[slot] for slot in sorted(last)]
        dues = {g.name: g.digest.due(now) for g in ordered if g.due_at is None}
        rows: list[tuple[object, ...]] = []
        for g in ordered:
            throttled = g.due_at is not None
            due = g.due_at if g.due_at is not None else dues[g.name]
            row = (g.slot, draw(), g.name, g.producer, g.key, throttled, due, counts[g.slot])
            rows.append(row)
        found = connection.execute(self._join, {"rows": packed(rows), "now": now})
        of = {row.slot: row.id for row in found}
        waits = [(g.slot, g.digest.max_items, *g.waits) for g in ordered]
        connection.execute(self._put_off, {"rows": packed(waits), "now": now})
        self._items.write(connection, [(i, of[g.slot], g.item) for i, g in wanted])

    def open(self, connection: sa.Connection, slots: Collection[str]) -> set[str]:
        """Those of ``slots`` for which a digest gathers now."""
        if not slots:
            return set()
        rows = packed([(slot,) for slot in sorted(slots)])
        return set(connection.execute(self._open, {"rows": rows}).scalars())
