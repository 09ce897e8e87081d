"""Clones of one template database, emptied for the next test instead of made anew.

To make a clone and drop it costs a quarter of a second of two cores, to empty it a tenth of
that. Only what a test cannot have left its mark on is used again: the same tables, functions
and settings, no statistics, no more than a little room taken. Never knows a table by name.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from tests.servers.postgres import Postgres

#: Room that dead rows may take before a clone has become another database (bytes).
_GROWTH = 1 << 20

#: A row of any of these is changed by whatever changes what a database is, not what it holds.
_CATALOGUES = (
    *("pg_attrdef", "pg_attribute", "pg_cast", "pg_collation", "pg_constraint", "pg_conversion"),
    *("pg_event_trigger", "pg_extension", "pg_index", "pg_inherits", "pg_namespace", "pg_policy"),
    *("pg_proc", "pg_rewrite", "pg_statistic_ext", "pg_trigger", "pg_type"),
)
_SHAPE = " UNION ALL ".join(
    [
        *(f"SELECT '{c}', count(*)::text, max(xmin::text::bigint)::text FROM {c}"
          for c in _CATALOGUES),
        "SELECT 'settings', count(*)::text, '' FROM pg_db_role_setting s"
        " JOIN pg_database d ON d.oid = s.setdatabase AND d.datname = current_database()",
        "SELECT 'statistics', count(*)::text, '' FROM pg_statistic WHERE starelid >= 16384",
        # With what vacuum and analyze write there: a plan may go by it.
        "SELECT 'tables', count(*)::text, md5(string_agg(concat_ws(' ', oid, relname, relkind,"
        " relfilenode, relpages, reltuples, relowner, relacl, reloptions, relrowsecurity,"
        " relpersistence), '|' ORDER BY oid)) FROM pg_class WHERE oid >= 16384",
    ]
)  # fmt: skip
_SIZE = (
    "SELECT sum(pg_relation_size(oid)) FROM pg_class"
    " WHERE oid >= 16384 AND relkind IN ('r', 'i', 't')"
)
_END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND backend_type = 'client backend'"
    " AND pid <> pg_backend_pid()"
)


class Clones:
    """The clones of ``template``, which nobody may be connected to."""

    def __init__(self, server: Postgres, template: str) -> None:
        self._server = server
        self.template = template
        self._clean: list[str] = []
        with psycopg.connect(server.dsn(template), autocommit=True) as connection:
            self._note(connection)

    def _note(self, connection: psycopg.Connection) -> None:
        tables = (
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN"
            " ('pg_catalog', 'information_schema')"
        )
        names = [sql.Identifier(*row) for row in connection.execute(tables)]
        filled = [
            name for name in names
            if connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(name)).fetchone()
        ]  # fmt: skip
        self._rows = [sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(n) for n in filled]
        sequences = connection.execute(
            "SELECT format('%I.%I', schemaname, sequencename), start_value, last_value"
            " FROM pg_sequences"
        ).fetchall()
        assert all(last is None for _, _, last in sequences), "the template has used a sequence"
        self._empty = sql.SQL("; ").join(
            [
                # Nothing that goes on with a row goes on with this.
                sql.SQL("BEGIN; SET LOCAL session_replication_role = replica"),
                *(sql.SQL("DELETE FROM {}").format(name) for name in names if name not in filled),
                *(
                    sql.SQL("SELECT setval({}, {}, false)").format(name, start)
                    for name, start, _ in sequences
                ),
                sql.SQL("COMMIT"),
            ]
        )
        self._shape = self._seen(connection)
        self._size = self._room(connection)

    def _seen(self, connection: psycopg.Connection) -> list[tuple[object, ...]]:
        rows = connection.execute(_SHAPE).fetchall()
        for query in self._rows:
            rows += connection.execute(query).fetchall()
        return rows

    @staticmethod
    def _room(connection: psycopg.Connection) -> int:
        found = connection.execute(_SIZE).fetchone()
        assert found is not None
        return int(found[0])

    def lend(self) -> str:
        """The name of a database that is as the template is."""
        return self._clean.pop() if self._clean else self._server.fresh_database(self.template)

    def take_back(self, name: str) -> None:
        """End the sessions in it, and keep it for the next, or drop it."""
        if self._emptied(name):
            self._clean.append(name)
        else:
            self._server.drop(name)

    def _emptied(self, name: str) -> bool:
        try:
            with psycopg.connect(self._server.dsn(name), autocommit=True) as connection:
                connection.execute(_END_OTHERS)
                if self._seen(connection) != self._shape:
                    return False
                if self._room(connection) > self._size + _GROWTH:
                    return False
                connection.execute(self._empty)
        except psycopg.Error:  # the test has dropped it, or a table
            return False
        return True
