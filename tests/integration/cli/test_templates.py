"""``mailgate templates check`` for people, for programs and for CI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Shell

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {"name": {"type": "string"}},
}


@pytest.fixture
def root(tmp_path: Path, shell: Shell) -> Path:
    root = tmp_path / "templates"
    shell.environment["MAILGATE_TEMPLATES__PATH"] = json.dumps([str(root)])
    pages = {
        "good": "<p>{{ name }}</p>",
        "pale": '<p style="float: left">{{ name }}</p>',
        "wrong": '<p>{{ name }}</p>\n<img src="https://x.example/a.png">',
        "broken": "<p>\n{{ name }</p>",
    }
    for name, html in pages.items():
        (root / name / "fixtures").mkdir(parents=True)
        (root / name / "template.toml").write_text("version = 1\n")
        (root / name / "context.schema.json").write_text(json.dumps(SCHEMA))
        (root / name / "en.subject").write_text("Hello")
        (root / name / "en.html").write_text(html)
        for key in ("minimal", "typical"):
            (root / name / "fixtures" / f"{key}.json").write_text('{"name": "Ann"}')
    return root


def test_a_good_template_and_one_to_think_about(root: Path, shell: Shell) -> None:
    said = shell("templates", "check", "good")
    assert (said.code, said.out) == (0, "1 templates, 0 faults, 0 warnings\n")
    said = shell("templates", "check", "good", "pale")
    assert (said.code, said.out) == (0, "2 templates, 0 faults, 1 warnings\n")
    assert said.err == "mailgate: warning: pale/en.html line 1: float is not known to Outlook\n"
    assert shell("templates", "check", "pale", "--strict").code == 1


def test_faults_end_with_1_and_name_file_and_line(root: Path, shell: Shell) -> None:
    said = shell("templates", "check", "wrong", "broken", "good", "--json")
    assert said.code == 1
    found = [(i["template"], i["level"], i["file"], i["line"]) for i in said.document["items"]]
    assert found == [
        ("wrong", "error", "wrong/en.html", 2),
        ("broken", "error", "broken/en.html", 2),
    ]


def test_a_name_that_is_not_there_is_wrong_usage(root: Path, shell: Shell) -> None:
    assert shell("templates", "check", "nothing").code == 2


def test_a_root_that_is_not_there_is_one_line_before_anything_starts(
    shell: Shell, tmp_path: Path
) -> None:
    shell.environment["MAILGATE_TEMPLATES__PATH"] = json.dumps([str(tmp_path / "nowhere")])
    for command in (["intake"], ["config", "check"], ["templates", "list"]):
        said = shell(*command)
        assert said.code == 2, command
        assert f"the template root {tmp_path}/nowhere is no directory" in said.err
        assert "Traceback" not in said.err


def test_a_terminal_without_the_character_shows_it_escaped() -> None:
    command = [sys.executable, "-m", "mailgate.cli.main", "templates", "render", "invoice"]
    said = subprocess.run(
        [*command, "--part", "text", "--locale", "zh-CN"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
    )
    assert (said.returncode, said.stderr) == (0, b"")
    assert b"\\u" in said.stdout
