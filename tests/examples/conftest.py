"""One ``mailgate up`` for all examples, as their READMEs start it, and what runs beside it.

The examples are programs of their own, in other languages too: they are started as a reader
would, and the mails are looked for in the inbox.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

# The examples on other brokers have a stage as the acceptance tests have.
from tests.acceptance.conftest import postgres_template, sqlite_template, stage  # noqa: F401
from tests.acceptance.stage import Program, until
from tests.acceptance.stage.stage import ROOT, short_directory


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # One ``mailgate up`` serves them all: they stay in one process.
            item.add_marker(pytest.mark.xdist_group("examples"))
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(300))


class Town:
    """``mailgate up`` in a directory of its own, and the programs beside it."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.directory = short_directory()
        self._programs: list[Program] = []
        self._kept = {k: v for k, v in os.environ.items() if not k.startswith("MAILGATE_")}
        ports = {"MAILGATE_INBOX__HTTP_PORT": "0", "MAILGATE_INBOX__SMTP_PORT": "0"}
        self._settings = ports | dict(settings)
        self._up = self.mailgate("up")
        try:
            until(lambda: "Ctrl-C stops it." in self._said(), 60, self._up.tail)
        except AssertionError:
            self.close()
            raise
        #: Where producers publish.
        self.url = self._line("publish to")
        self.page = self._line("inbox page")

    def mailgate(self, *arguments: str) -> Program:
        """One of mailgate's commands, left running."""
        command = [sys.executable, "-m", "mailgate.cli.main", *arguments]
        return self.program(command, self.directory, self._settings)

    def program(self, command: Sequence[str], directory: Path, names: Mapping[str, str]) -> Program:
        """An example's program; ``directory`` is where its modules are."""
        log = self.directory / f"{len(self._programs):02}.log"
        path = f"{directory}{os.pathsep}{ROOT}"
        environment = self._kept | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | dict(names)
        made = Program(command, log=log, env=environment, cwd=self.directory)
        self._programs.append(made)
        return made

    def inbox(self) -> list[dict[str, Any]]:
        """Every mail so far, as the inbox lists them."""
        with urllib.request.urlopen(f"{self.page}api/mails?limit=500", timeout=10) as reply:
            items: list[dict[str, Any]] = json.load(reply)["items"]
        return items

    def _said(self) -> str:
        return self._up.log.read_text()

    def _line(self, name: str) -> str:
        found = re.search(rf"{name} +(\S+)", self._said())
        assert found, self._said()
        return found[1]

    def close(self) -> None:
        for program in self._programs[1:]:
            program.wipe_out()
        if self._up.running:
            self._up.stop(60)
        self._up.wipe_out()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def town() -> Iterator[Town]:
    made = Town({})
    yield made
    made.close()
