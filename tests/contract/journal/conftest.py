"""The journal on SQLite and on PostgreSQL: each test here runs over both.

Migrations run once a database kind; a test gets a copy of the result, or on PostgreSQL one
that another test has had and that is as it was.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailgate.journal import schema
from tests.contract.journal.rig import Rig
from tests.servers import Clones, Postgres


@pytest.fixture(scope="session")
def migrated_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mailgate-journal-") as directory:
        path = Path(directory) / "journal.db"
        schema.upgrade(f"sqlite:///{path}")
        yield path


@pytest.fixture(scope="session")
def migrated_clones(postgres_server: Postgres) -> Clones:
    if not postgres_server.running:
        postgres_server.start()
    name = postgres_server.fresh_database()
    schema.upgrade(postgres_server.url(name))
    return Clones(postgres_server, name)


@pytest.fixture
def sqlite_url(migrated_file: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(migrated_file, tmp_path / 'journal.db')}"


@pytest.fixture
def migrated_postgres_url(postgres_server: Postgres, migrated_clones: Clones) -> Iterator[str]:
    if not postgres_server.running:  # the test before us stopped it
        postgres_server.start()
    name = migrated_clones.lend()
    yield postgres_server.url(name)
    if postgres_server.running:
        migrated_clones.take_back(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest) -> str:
    """A migrated journal of its own, once on each database."""
    name = "sqlite_url" if request.param == "sqlite" else "migrated_postgres_url"
    return str(request.getfixturevalue(name))


@pytest.fixture
def fresh_journal(fresh_database: Callable[..., str], migrated_clones: Clones) -> str:
    """A migrated journal on PostgreSQL that nobody has ever had: how it plans goes by its past."""
    return fresh_database(template=migrated_clones.template)


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
