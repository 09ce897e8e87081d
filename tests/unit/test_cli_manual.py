"""The manual of the command line is current, and lacks nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mailgate.cli.examples import EXAMPLES
from mailgate.cli.main import app
from mailgate.cli.reference import commands, examples, reference
from mailgate.cli.tree import COMMANDS as TREE
from mailgate.cli.tree import read

ROOT = Path(__file__).parents[2]
COMMANDS = {" ".join(path): command for path, command in commands(typer.main.get_command(app))}


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
def test_each_command_shows_an_example(name):
    assert examples(COMMANDS[name]), f"give {name} an example in mailgate/cli/examples.py"


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
    said = CliRunner().invoke(app, ["templates", "render", "--help"]).stdout
    for line in EXAMPLES["templates render"]:
        assert f"\n    {line}\n" in f"{said}\n"


@pytest.mark.parametrize("name", TREE)
def test_help_says_of_a_command_what_the_command_says_of_itself(name):
    assert read(name).get_short_help_str(1000) == TREE[name].summary


def _modules(program: str) -> set[str]:
    """What a program has imported when it ends."""
    told = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    done = subprocess.run(
        [sys.executable, "-c", told + program],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stderr.split())


def test_help_reads_no_command_and_takes_little_more_than_typer_itself():
    """Half again as long as ``import typer`` when this was written, by modules a tenth more."""
    ours = _modules("import sys; sys.argv[1:] = ['--help']\n"
                    "from mailgate.cli.main import main; main()")  # fmt: skip
    typers = _modules("import typer")
    read_ones = {entry.where.partition(":")[0] for entry in TREE.values()}
    assert ours & {f"mailgate.cli.{name}" for name in read_ones} == set()
    assert len(ours) < 1.25 * len(typers), sorted(ours - typers)


def _asked(words: str) -> dict[str, str | None]:
    """As bash asks for the last of ``words``, once ``--install-completion`` has been there."""
    unset = {name: None for name in os.environ if name.startswith("MAILGATE_")}
    return {
        **unset,
        "_MAILGATE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }


def completed(words: str) -> list[str]:
    """What is said in this directory, by this process: to load mailgate takes a second."""
    done = CliRunner().invoke(app, [], env=_asked(words), prog_name="mailgate")
    assert done.stderr == ""
    return done.stdout.split()


def completed_in_a_process(words: str) -> list[str]:
    environ = {k: v for k, v in {**os.environ, **_asked(words)}.items() if v is not None}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'mailgate'\n"
         "from mailgate.cli.main import app; app(prog_name='mailgate')"],
        env=environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def two_relays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with a configuration to complete from."""
    relay = '[relays.{}]\nhost = "smtp.example.com"\n'
    both = relay.format("main") + relay.format("backup")
    (tmp_path / "mailgate.toml").write_text(both, "utf-8")
    (tmp_path / "other.toml").write_text(relay.format("elsewhere"), "utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("mailgate failures re", ["resend"]),
        ("mailgate pause relay ", ["backup", "main"]),
        ("mailgate messages list --stream t", ["transactional"]),
        ("mailgate templates check notic", ["notice"]),
        ("mailgate messages list --state de", ["deferred"]),
        ("mailgate --config other.toml relays test ", ["elsewhere"]),
        ("mailgate failures list --error-class x", []),
    ],
)
@pytest.mark.usefixtures("two_relays")
def test_a_shell_completes_commands_options_and_names(words: str, names: list[str]) -> None:
    assert completed(words) == names


@pytest.mark.usefixtures("two_relays")
def test_a_process_of_its_own_completes_the_same() -> None:
    assert completed_in_a_process("mailgate pause relay ") == ["backup", "main"]


@pytest.mark.parametrize("ask", [completed, completed_in_a_process])
def test_a_broken_configuration_completes_nothing_in_silence(
    ask: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mailgate.toml").write_text("[relays", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert ask("mailgate pause relay ") == []
