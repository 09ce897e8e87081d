"""The commands in this process, over a real journal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mailgate.cli import changing, lanes, messages, parked, rescheduling
from mailgate.cli.main import app
from mailgate.model.state import Lane
from tests.contract.journal.conftest import (  # noqa: F401 - fixtures by name
    migrated_file,
    rigs_of,
    sqlite_url,
)
from tests.contract.journal.rig import Rig


class Said:
    """What a command answered."""

    def __init__(self, result: Any) -> None:
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr
        self.error = result.exception

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)


class Shell:
    """``shell("messages", "list")`` runs a command as an operator would type it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.rings: list[Lane] = []

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> Said:
        said = Said(CliRunner().invoke(app, arguments, env=self.environment, input=stdin))
        # Nothing but an ordinary end: no traceback for an operator, whatever was typed.
        assert said.error is None or isinstance(said.error, SystemExit), said.error
        return said


@pytest.fixture
def journal(sqlite_url: str, rigs_of: Callable[[str], Rig]) -> Rig:  # noqa: F811
    return rigs_of(sqlite_url)


@pytest.fixture
def shell(journal: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    environment = {
        "MAILGATE_STATE_DIR": str(tmp_path / "state"),
        "MAILGATE_JOURNAL__URL": journal.url,
        "MAILGATE_RELAYS__MAIN__HOST": "127.0.0.1",
        "MAILGATE_RELAYS__MAIN__SECURITY": "none",
        "MAILGATE_STREAMS__TRANSACTIONAL__FROM": "Shop <shop@example.com>",
        "MAILGATE_BROKER__URL": "redis://127.0.0.1:1/0",
        "TERM": "dumb",
    }
    made = Shell(environment)
    monkeypatch.chdir(tmp_path)
    # The doorbell needs Celery's one app of a process; rings are best effort anyway.
    for module in (changing, lanes, messages, parked, rescheduling):
        monkeypatch.setattr(module, "bell", lambda _config: made.rings.append)
    return made
