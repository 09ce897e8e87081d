"""What the files of deploy/ say, and whether mailgate knows the words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer.main
import yaml

from mailgate.cli.main import app
from mailgate.config.environment import settings

FOLDER = Path(__file__).parents[3] / "deploy"
IMAGE = (FOLDER / "Dockerfile").read_text().replace("\\\n", "")
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
#: The services that are mailgate's processes.
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("mailgate:")]


def instructions(word: str) -> list[str]:
    """The Dockerfile's instructions of a kind, in order, each on one line."""
    return re.findall(rf"^{word} +(.+)$", IMAGE, re.MULTILINE)


def environment_of_the_image() -> dict[str, str]:
    [line] = instructions("ENV")
    return dict(pair.split("=", 1) for pair in line.split())


def is_command(words: Sequence[str]) -> None:
    """Raises unless mailgate takes exactly these words."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    assert command.make_context("mailgate", rest).args == []


def sets_known_keys(environ: Mapping[str, str], tree: Mapping[str, Any] | None = None) -> None:
    """Raises unless every MAILGATE_ variable is a key; ``tree`` is the file's."""
    assert [s.rule for s in settings(environ, tree or {}) if s.path is None] == []
