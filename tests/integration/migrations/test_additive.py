"""The rule by which old and new code live with one journal: a revision only adds.

While a new version is rolled out the schema is new already (``mailgate db upgrade`` comes
first) and half of the processes are old: they read and write by the names that they know.
So a revision may add tables, indexes, and columns that may be left out; it takes nothing
away, renames nothing and demands nothing new. What is to go goes a version later.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from mailgate.journal import revision, schema

Columns = dict[str, dict[str, tuple[str, bool, bool]]]


def columns(connection: sa.Connection) -> Columns:
    """Of each table: type, whether it may be null, whether it may be left out."""
    seen = sa.inspect(connection)
    return {
        table: {
            c["name"]: (
                str(c["type"]),
                bool(c["nullable"]),
                bool(c["nullable"] or c["default"] is not None or c.get("autoincrement") is True),
            )
            for c in seen.get_columns(table)
        }
        for table in seen.get_table_names()
        if table != "alembic_version"
    }


def unique(connection: sa.Connection) -> set[tuple[str, tuple[str, ...]]]:
    """What may be there once only."""
    seen = sa.inspect(connection)
    found = set()
    for table in seen.get_table_names():
        lot = [c["column_names"] for c in seen.get_unique_constraints(table)]
        lot += [i["column_names"] for i in seen.get_indexes(table) if i["unique"]]
        found |= {(table, tuple(str(c) for c in names)) for names in lot}
    return found


def breaking(before: Columns, after: Columns) -> list[str]:
    """What of ``after`` a program that knows ``before`` cannot live with."""
    found = []
    for table, known in before.items():
        now = after.get(table)
        if now is None:
            found.append(f"{table} is gone")
            continue
        for name, (kind, nullable, _) in known.items():
            if name not in now:
                found.append(f"{table}.{name} is gone")
            elif now[name][0] != kind:
                found.append(f"{table}.{name} was {kind} and is {now[name][0]}")
            elif nullable and not now[name][1]:
                found.append(f"{table}.{name} may not be null any more")
        for name in now.keys() - known.keys():
            if not now[name][2]:
                found.append(f"{table}.{name} is new and cannot be left out")
    return found


def test_every_revision_after_the_first_only_adds(tmp_path: Path) -> None:
    """There is none yet: the first that breaks the rule fails here."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'journal.db'}", poolclass=sa.pool.NullPool)
    revisions = [
        script.revision
        for script in ScriptDirectory.from_config(schema._alembic()).walk_revisions("base", "heads")
    ][::-1]
    assert revisions[-1] == revision.LATEST
    assert revisions == sorted(revisions), "an older program takes a newer journal by its number"
    before: Columns = {}
    alone: set[tuple[str, tuple[str, ...]]] = set()
    for name in revisions:
        with engine.connect() as connection:
            command.upgrade(schema._alembic(connection), name)
            connection.commit()
            after, once = columns(connection), unique(connection)
        assert breaking(before, after) == []
        assert {(t, c) for t, c in once - alone if t in before} == set()
        before, alone = after, once
    assert "recipients" in before


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("DROP TABLE t", "t is gone"),
        ("ALTER TABLE t DROP COLUMN b", "t.b is gone"),
        ("ALTER TABLE t RENAME COLUMN b TO c", "t.b is gone"),
        ("ALTER TABLE t ADD COLUMN c TEXT", ""),
        ("ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT ''", ""),
        ("CREATE TABLE other (a INTEGER NOT NULL)", ""),
    ],
)
def test_what_breaks_the_rule_is_told(change: str, word: str) -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        before = columns(connection)
        connection.exec_driver_sql(change)
        found = breaking(before, columns(connection))
    engine.dispose()
    assert (found[0] if found else "") == word
    assert bool(found) == bool(word)


def test_a_column_that_must_be_said_breaks_the_rule() -> None:
    before: Columns = {"t": {"a": ("TEXT", True, True)}}
    after: Columns = {"t": {"a": ("TEXT", False, False), "b": ("TEXT", False, False)}}
    assert breaking(before, after) == [
        "t.a may not be null any more",
        "t.b is new and cannot be left out",
    ]
