"""Inserting many rows, as each database takes it quickest.

Owns the two spellings: a prepared statement run row by row inside SQLite, one JSON
text for PostgreSQL, where each parameter would travel by itself. Never knows what
the tables mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mailgate.journal.database import Database, packs


class Inserting:
    """``INSERT`` into ``table``, its values by position in ``columns`` (name to kind).

    ``constants`` are further columns with SQL literals; ``tail`` follows the rows
    (``ON CONFLICT …``). The kinds are those of ``Database.rows``.
    """

    def __init__(
        self,
        database: Database,
        table: str,
        columns: Mapping[str, str],
        *,
        constants: Mapping[str, str] | None = None,
        tail: str = "",
    ) -> None:
        self._sqlite = database.sqlite
        more = constants or {}
        names = ", ".join([*columns, *more])
        if self._sqlite:
            values = ", ".join(["?"] * len(columns) + list(more.values()))
            self._each = f"INSERT INTO {table} ({names}) VALUES ({values}) {tail}"
        else:
            values = ", ".join([*columns, *more.values()])
            self._whole = sa.text(
                f"INSERT INTO {table} ({names}) SELECT {values}"
                f" FROM {database.rows(columns, once=False)} {tail}"
            )

    def write(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Insert ``rows``; gives how many there are now that were not before."""
        if not rows:
            return 0
        if self._sqlite:
            return connection.exec_driver_sql(self._each, list(rows)).rowcount
        return sum(connection.execute(self._whole, {"rows": t}).rowcount for t in packs(rows))
