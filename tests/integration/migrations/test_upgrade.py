"""Migrations: up and down, by several processes at once, and killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from mailgate.journal import revision, schema
from mailgate.journal.database import JournalAway

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'journal.db'}"
    return str(request.getfixturevalue("postgres_url"))


def tables(url: str) -> set[str]:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    try:
        return set(sa.inspect(engine).get_table_names()) - {"alembic_version"}
    finally:
        engine.dispose()


def downgrade(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    try:
        with engine.connect() as connection:
            command.downgrade(schema._alembic(connection), "base")
            connection.commit()
    finally:
        engine.dispose()


def upgrading(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from mailgate.journal import schema;"
            " sys.stdin.readline(); schema.upgrade(sys.argv[1])",
            url,
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_upgraded_journal_has_the_tables_of_this_version(empty_url: str) -> None:
    schema.upgrade(empty_url)
    assert schema.differences(empty_url) == []
    assert revision.current(empty_url) == revision.LATEST == schema.latest()
    assert revision.behind(empty_url) == ""


def test_a_journal_that_is_ahead_serves_the_version_before(empty_url: str) -> None:
    """While processes are replaced one by one, old ones start again now and then."""
    schema.upgrade(empty_url)
    engine = sa.create_engine(empty_url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
    assert revision.behind(empty_url) == ""
    assert revision.current(empty_url) == "0002"
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    engine.dispose()
    assert revision.behind(empty_url) == "0000"


def test_a_missing_column_is_a_difference(empty_url: str) -> None:
    """The check above can fail."""
    schema.upgrade(empty_url)
    engine = sa.create_engine(empty_url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE buckets DROP COLUMN waits_for")
    engine.dispose()
    assert len(schema.differences(empty_url)) == 1


def test_down_and_up_again(empty_url: str) -> None:
    schema.upgrade(empty_url)
    whole = tables(empty_url)
    downgrade(empty_url)
    assert tables(empty_url) == set()
    assert revision.behind(empty_url) == "no revision"
    schema.upgrade(empty_url)
    assert tables(empty_url) == whole
    assert schema.differences(empty_url) == []


def test_upgrading_what_is_new_already_changes_nothing(empty_url: str) -> None:
    schema.upgrade(empty_url)
    schema.upgrade(empty_url)
    assert schema.differences(empty_url) == []


def test_four_processes_upgrade_at_once(empty_url: str) -> None:
    processes = [upgrading(empty_url) for _ in range(4)]
    time.sleep(0.1)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert schema.differences(empty_url) == []


def test_sqlite_is_in_wal_mode_and_syncs_fully(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    schema.upgrade(url)
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()


DIES = """
import os, signal, sys
from alembic import op
from mailgate.journal import schema
real, left = op.create_table, [int(sys.argv[2])]
def create_table(*args, **values):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **values)
op.create_table = create_table
schema.upgrade(sys.argv[1])
"""


@pytest.mark.parametrize("table", [2, 8])
def test_an_upgrade_that_was_killed_is_done_again(empty_url: str, table: int) -> None:
    """Half a migration would find its own tables in the way for ever."""
    died = subprocess.run(
        [sys.executable, "-c", DIES, empty_url, str(table)],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    schema.upgrade(empty_url)
    assert schema.differences(empty_url) == []


def test_a_journal_that_is_not_there_is_away(fresh_database: Callable[..., str]) -> None:
    url = fresh_database()
    with pytest.raises(JournalAway):
        revision.behind(url + "_gone")


def test_another_programs_file_is_no_journal_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "letters.db"
    file.write_bytes(b"this is a letter, and no database at all" * 100)
    with pytest.raises(JournalAway, match="not a database"):
        schema.upgrade(f"sqlite:///{file}")
    assert file.read_bytes().startswith(b"this is a letter")


def test_the_migrations_are_found_beside_the_package() -> None:
    assert (schema.scripts() / "env.py").is_file()
    assert schema.scripts() == ROOT / "migrations"
