"""The journal on SQLite and on PostgreSQL: each test here runs over both.

Migrations run once a database kind; a test gets a copy of the result.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailgate.journal import schema
from tests.contract.journal.rig import Rig
from tests.servers import Postgres


@pytest.fixture(scope="session")
def migrated_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mailgate-journal-") as directory:
        path = Path(directory) / "journal.db"
        schema.upgrade(f"sqlite:///{path}")
        yield path


@pytest.fixture(scope="session")
def migrated_template(postgres_server: Postgres) -> str:
    if not postgres_server.running:
        postgres_server.start()
    name = postgres_server.fresh_database()
    schema.upgrade(postgres_server.url(name))
    return name


@pytest.fixture
def sqlite_url(migrated_file: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(migrated_file, tmp_path / 'journal.db')}"


@pytest.fixture
def migrated_postgres_url(fresh_database: Callable[..., str], migrated_template: str) -> str:
    return fresh_database(migrated_template)


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest) -> str:
    """A migrated journal of its own, once on each database."""
    name = "sqlite_url" if request.param == "sqlite" else "migrated_postgres_url"
    return str(request.getfixturevalue(name))


@pytest.fixture
def rigs_of() -> Iterator[Callable[[str], Rig]]:
    """``rigs_of(url)`` is one more connection to a journal, as another process has."""
    made: list[Rig] = []

    def another(url: str) -> Rig:
        made.append(Rig(url))
        return made[-1]

    yield another
    for rig in made:
        rig.close()


@pytest.fixture
def processes(journal_url: str, rigs_of: Callable[[str], Rig]) -> Callable[[], Rig]:
    return lambda: rigs_of(journal_url)


@pytest.fixture
def journal(processes: Callable[[], Rig]) -> Rig:
    return processes()
