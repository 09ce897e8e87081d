"""``mailgate up`` where it cannot be: one line says why."""

from __future__ import annotations

from pathlib import Path

from tests.integration.cli.conftest import Shell


def test_a_state_directory_that_cannot_be_made(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shell.environment["MAILGATE_STATE_DIR"] = str(tmp_path / "file")
    said = shell("up")
    assert said.code == 2
    assert said.err == f"mailgate: state_dir {tmp_path}/file cannot be written: Not a directory\n"
