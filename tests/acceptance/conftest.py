"""Stages for acceptance tests: every broker with every journal, and figures for the record."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stage import Stage
from tests.acceptance.stage.stage import short_directory

BROKERS = ("valkey", "rabbitmq")
JOURNALS = ("sqlite", "postgresql")

#: ``./dev faults`` asks for the numbers that take minutes.
FULL = os.environ.get("ACCEPTANCE") == "full"

Setting = Callable[..., Stage]


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
            journal_url = f"sqlite:///{directory / 'journal.db'}"
        else:
            journal_url = request.getfixturevalue("fresh_database")()
        found = Stage(directory, broker=broker_url, journal=journal_url, **more)
        made.append((found, directory))
        return found

    yield make
    for one, directory in made:
        one.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def figure(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Any:
    """``figure(name=value, …)`` puts what was seen on record; ``./dev faults`` prints it."""

    def note(**seen: object) -> None:
        for name, value in seen.items():
            record_property(name, value)
        line = json.dumps({"test": request.node.name, **seen}, default=str)
        print(line)
        if path := os.environ.get("ACCEPTANCE_FIGURES"):
            with open(path, "a") as file:
                file.write(line + "\n")

    return note
