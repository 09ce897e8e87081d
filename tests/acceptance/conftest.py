"""Stages for acceptance tests: every broker with every journal, and figures for the record."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stage import Stage
from tests.acceptance.stage.stage import ROOT, short_directory
from tests.servers import Postgres

BROKERS = ("valkey", "rabbitmq")
JOURNALS = ("sqlite", "postgresql")

#: ``ACCEPTANCE=full`` asks for the numbers that take minutes.
FULL = os.environ.get("ACCEPTANCE") == "full"

Setting = Callable[..., Stage]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stages start a dozen processes: on a busy machine that takes its time."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))


def _upgrade(url: str, directory: Path) -> None:
    command = [sys.executable, "-m", "mailgate.cli.main", "db", "upgrade"]
    environment = os.environ | {"MAILGATE_JOURNAL__URL": url, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=environment, cwd=directory, check=True, timeout=60)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal's file as ``mailgate db upgrade`` makes it; each stage gets a copy."""
    directory = tmp_path_factory.mktemp("template")
    _upgrade(f"sqlite:///{directory / 'journal.db'}", directory)
    return directory / "journal.db"


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database as ``mailgate db upgrade`` makes it, to be cloned."""
    if not postgres_server.running:
        postgres_server.start()
    name = postgres_server.fresh_database()
    _upgrade(postgres_server.url(name), tmp_path_factory.mktemp("template"))
    return name


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Setting]:
    """``stage(broker, journal, plans=…, settings=…)`` sets a gateway up."""
    made: list[tuple[Stage, Path]] = []

    def make(broker: str = "valkey", journal: str = "sqlite", **more: Any) -> Stage:
        directory = short_directory()
        if broker == "valkey":
            broker_url = request.getfixturevalue("valkey").broker_url
        else:
            broker_url = request.getfixturevalue("rabbitmq").url
        if journal == "sqlite":
            shutil.copy(request.getfixturevalue("sqlite_template"), directory / "journal.db")
            journal_url = f"sqlite:///{directory / 'journal.db'}"
        else:
            template = request.getfixturevalue("postgres_template")
            journal_url = request.getfixturevalue("fresh_database")(template)
        found = Stage(directory, broker=broker_url, journal=journal_url, **more)
        made.append((found, directory))
        return found

    yield make
    for one, directory in made:
        one.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def figure(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Any:
    """``figure(name=value, …)`` puts what was seen on record, a line in ACCEPTANCE_FIGURES."""

    def note(**seen: object) -> None:
        for name, value in seen.items():
            record_property(name, value)
        line = json.dumps({"test": request.node.name, **seen}, default=str)
        print(line)
        if path := os.environ.get("ACCEPTANCE_FIGURES"):
            with open(path, "a") as file:
                file.write(line + "\n")

    return note
