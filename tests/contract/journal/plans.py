"""How the databases carry out the journal's statements: each that runs is explained.

Owns the watch over a connection: every statement is explained where and as it runs, with
its own values, on its own connection and inside its own transaction; on PostgreSQL also
under the plan without values, which a connection keeps for what it has said five times.
Knows what reading a table wholly looks like; never knows what a statement is for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from psycopg import sql as spelling

#: Tables that grow with the mail that was ever sent, or that waits.
GROWING = frozenset(
    (
        *("messages", "recipients", "attempts", "events", "attachments", "renderings"),
        *("throttle_hits", "digest_items", "digests", "orders", "parked", "published"),
        *("suppressions", "bounce_hints"),
    )
)
#: Of one bucket it is read from an end; all of it is a backlog, however large.
DUE = "ix_recipients_due"
#: Indexes that hold what is under way, however much was sent or waits.
HELD = ("ix_recipients_lease", "ix_messages_unacked", "ix_orders_waiting")
#: Looked through once an hour, and as long as operators and failures made them.
HOURLY = ("DELETE FROM suppressions WHERE id IN", "DELETE FROM bounce_hints WHERE address IN (SEL")
#: Of few rows at a time, if any: a plan that PostgreSQL made for an empty table is none for long.
SELDOM = (
    "UPDATE recipients SET state = %(target)s",
    "UPDATE recipients SET state = v.state, due_at = v.due_at, seq",
    "SELECT id FROM messages WHERE id IN",
)
_WHOLE = (("smallint", 15), ("integer", 31), ("bigint", 63))
_NAMED = re.compile(r"\b(?:FROM|JOIN|UPDATE|INTO)\s+(\w+)(?:\s+(?:AS\s+)?(\w+))?", re.IGNORECASE)
#: A look whether there is any row, or which is the newest: one row, however many there are.
_ONE = re.compile(
    r"EXISTS \(SELECT 1 FROM \w+\)|SELECT 1 FROM \w+ LIMIT 1|SELECT max\(id\) FROM \w+"
)


class Plans:
    """``wholly`` has each statement that reads a growing table from end to end, with how."""

    def __init__(self, growing: frozenset[str] = GROWING) -> None:
        self.seen: Counter[str] = Counter()
        self.wholly: dict[str, str] = {}
        self._growing = growing
        self._asking = False

    def look(
        self,
        connection: sa.Connection,
        _cursor: object,
        statement: str,
        parameters: Any,
        _context: object,
        many: bool,
    ) -> None:
        if self._asking or not re.match(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b", statement):
            return
        self.seen[statement] += 1
        if self.seen[statement] > 2:
            return
        raw = connection.connection.dbapi_connection
        assert raw is not None
        values = parameters[0] if many else parameters
        self._asking = True
        try:
            if connection.dialect.name == "sqlite":
                found = _sqlite(raw, statement, values, self._growing)
            else:
                found = _postgresql(raw, statement, values, self._growing)
        finally:
            self._asking = False
        if found and not statement.startswith(HOURLY):
            self.wholly.setdefault(statement, "; ".join(found))

    @contextmanager
    def watching(self) -> Iterator[Plans]:
        sa.event.listen(sa.Engine, "before_cursor_execute", self.look)
        try:
            yield self
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", self.look)


def _names(statement: str, growing: frozenset[str]) -> dict[str, str]:
    """The growing tables that a statement reads more of than one row, by name and alias."""
    names = {}
    for table, alias in _NAMED.findall(_ONE.sub("", statement)):
        if table in growing:
            names |= {table: table, alias: table}
    return names


def _sqlite(raw: Any, statement: str, values: Any, growing: frozenset[str]) -> list[str]:
    names = _names(statement, growing)
    plan = raw.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    found = []
    for *_, detail in plan:
        scan = re.match(r"SCAN (\w+)", detail)
        if (scan and scan[1] in names and not detail.endswith(HELD)) or (
            f"{DUE} (" in detail and "bucket_id" not in detail
        ):
            found.append(detail)
    return found


def _postgresql(raw: Any, statement: str, values: Any, growing: frozenset[str]) -> list[str]:
    found, tables = [], frozenset(_names(statement, growing).values())
    with raw.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", values)
        found += _wholly(cursor.fetchone()[0][0]["Plan"], tables)
        generic, given = _numbered(statement, values)
        types = ", ".join(_type(value) for value in given)
        cursor.execute(f"PREPARE watched {f'({types})' if given else ''} AS {generic}")
        cursor.execute("SHOW plan_cache_mode")
        before = cursor.fetchone()[0]
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        said = spelling.SQL(", ").join(spelling.Literal(value) for value in given)
        run = spelling.SQL("EXPLAIN (FORMAT JSON) EXECUTE watched")
        cursor.execute(run + spelling.SQL("({})").format(said) if given else run)
        found += [f"generic: {one}" for one in _wholly(cursor.fetchone()[0][0]["Plan"], tables)]
        cursor.execute(f"SET plan_cache_mode = {before}")
        cursor.execute("DEALLOCATE watched")
    return found


def _type(value: Any) -> str:
    """What psycopg says that a value is: a whole number of its size, else nothing."""
    if type(value) is not int:
        return "unknown"
    return next(t for t, bits in _WHOLE if -(2**bits) <= value < 2**bits)


def _numbered(statement: str, values: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
    """A statement with its parameters by number, as a server is told it."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}"

    text = re.sub(r"%\((\w+)\)s", number, statement).replace("%%", "%")
    return text, [values[name] for name in names]


def _wholly(node: Mapping[str, Any], tables: frozenset[str], table: str = "") -> list[str]:
    table = node.get("Relation Name", table)
    kind, index = node["Node Type"], node.get("Index Name", "")
    found = []
    if table in tables and kind == "Seq Scan":
        found.append(f"{kind} of {table}")
    elif table in tables and index and not index.endswith(HELD):
        if "Index Cond" not in node:
            found.append(f"{kind} of all of {index}")
        elif index == DUE and "bucket_id" not in node["Index Cond"]:
            found.append(f"{kind} of all that is due")
    below = node.get("Plans", ())
    if kind == "Nested Loop" and _unfolded(below[1]):
        found.append("the rows that were sent, unfolded again for each row")
    for child in below:
        found += _wholly(child, tables, table)
    return found


def _unfolded(node: Mapping[str, Any]) -> bool:
    """Whether carrying out a node anew unfolds the JSON text anew."""
    if node["Node Type"] in ("Materialize", "Memoize", "CTE Scan", "Sort"):
        return False
    if node.get("Function Name") == "jsonb_array_elements":
        return True
    return any(_unfolded(c) for c in node.get("Plans", ()) if "Subplan Name" not in c)
