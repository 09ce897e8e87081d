"""The manual of the command line is current, and lacks nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mailgate.cli.examples import EXAMPLES
from mailgate.cli.main import app
from mailgate.cli.reference import commands, examples, reference

ROOT = Path(__file__).parents[2]
COMMANDS = {" ".join(path): command for path, command in commands(typer.main.get_command(app))}
#: These take nothing, or no more than how a list is shown.
PLAIN = {"--limit", "--json", "--csv", "--show-personal-data", "--after"}


def test_the_page_is_current():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m mailgate.cli.reference > docs/cli.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_each_of_its_options_says_what_it_means(name):
    command = COMMANDS[name]
    assert (command.help or "").strip(), name
    for param in command.params:
        said = param.help or ""
        assert said.rstrip().endswith((".", "…")), (name, param.opts)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_that_takes_more_than_nothing_shows_an_example(name):
    command = COMMANDS[name]
    own = {o for p in command.params if p.name != "help" for o in p.opts} - PLAIN
    assert examples(command) or not own, f"give {name} an example in mailgate/cli/examples.py"


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, c in COMMANDS.items() for line in examples(c)]
)
def test_each_example_can_be_typed(name, line):
    """By its own command: words, options and the kinds of their values."""
    words = shlex.split(line.partition(" > ")[0].partition(" | ")[0])[1:]
    while words[0].startswith("--"):
        words = words[2:]
    own = name.split()
    assert words[: len(own)] == own
    COMMANDS[name].make_context(name, words[len(own) :])


def test_no_example_is_for_a_command_that_is_not_there():
    assert set(EXAMPLES) <= set(COMMANDS)


def test_help_keeps_the_lines_of_an_example():
    from typer.testing import CliRunner

    said = CliRunner().invoke(app, ["templates", "render", "--help"]).stdout
    for line in EXAMPLES["templates render"]:
        assert f"\n    {line}\n" in f"{said}\n"


def test_a_shell_completes_commands_and_options():
    """As bash asks for it, once ``--install-completion`` has been there."""
    environ = {
        **os.environ,
        "_MAILGATE_COMPLETE": "complete_bash",
        "COMP_WORDS": "mailgate failures re",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'mailgate'\n"
         "from mailgate.cli.main import app; app(prog_name='mailgate')"],
        env=environ, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["resend"], done.stderr
