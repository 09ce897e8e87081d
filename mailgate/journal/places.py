"""Conversations at once: who has a place, counted over all workers.

Owns the table ``places``, with a row for each open conversation under a cap. A place is
held for as long as its claim stands: what settles, dies or is moved by an operator frees
it in that very transaction, and the row left behind counts for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import sqlalchemy as sa

from mailgate.journal.database import Database, packed
from mailgate.limits.policy import Cap

Wanted = Sequence[tuple[int, Sequence[Cap]]]

_STANDS = (
    "SELECT 1 FROM recipients r WHERE r.id = places.recipient_id"
    " AND r.token = places.token AND r.state = 'sending'"
)


class Places:
    def __init__(self, database: Database) -> None:
        self._sqlite = database.sqlite
        keys = database.rows({"key": "text"})
        # In the order of the keys: two takers go one after the other, and never in a ring.
        self._lock = sa.text(
            "SELECT pg_advisory_xact_lock(hashtextextended(k.key, 8))"
            f" FROM (SELECT DISTINCT key FROM {keys} ORDER BY key) AS k"
        )
        self._clear = sa.text(
            f"DELETE FROM places WHERE key IN (SELECT key FROM {keys}) AND NOT EXISTS ({_STANDS})"
        )
        self._count = sa.text(
            "SELECT key, recipient_id FROM places"
            f" WHERE key IN (SELECT key FROM {keys}) AND EXISTS ({_STANDS})"
        )
        row = {"key": "text", "recipient_id": "bigint", "token": "bigint"}
        self._insert = sa.text(
            "INSERT INTO places (key, recipient_id, token) SELECT key, recipient_id, token"
            f" FROM {database.rows(row)} WHERE true"
            " ON CONFLICT (key, recipient_id) DO UPDATE SET token = excluded.token"
        )

    def fit(
        self,
        connection: sa.Connection,
        wanted: Wanted,
        *,
        hold: bool = True,
        leaving: Collection[int] = (),
    ) -> set[int]:
        """Those of ``wanted``, in their order, for whom every cap has a place.

        The caps stay locked until the transaction ends. Without ``hold`` it is a look:
        another may take the place that was seen. ``leaving`` are recipients whose
        conversation has ended, though the journal does not know it yet.
        """
        names = sorted({cap.key for _, caps in wanted for cap in caps})
        if not names:
            return {id_ for id_, _ in wanted}
        keys = {"rows": packed([(name,) for name in names])}
        if hold:
            if not self._sqlite:
                connection.execute(self._lock, keys)
            connection.execute(self._clear, keys)
        taken: dict[str, int] = dict.fromkeys(names, 0)
        for key, id_ in connection.execute(self._count, keys):
            taken[key] += id_ not in leaving
        fits = set()
        for id_, caps in wanted:
            if all(taken[cap.key] < cap.most for cap in caps):
                fits.add(id_)
                for cap in caps:
                    taken[cap.key] += 1
        return fits

    def take(
        self, connection: sa.Connection, claimed: Iterable[tuple[int, int, Sequence[Cap]]]
    ) -> None:
        """Write down the places of new claims: recipient, token, caps."""
        rows = [(cap.key, id_, token) for id_, token, caps in claimed for cap in caps]
        if rows:
            connection.execute(self._insert, {"rows": packed(rows)})
