"""The manual of the command line, written from the commands themselves.

``python -m mailgate.cli.reference > docs/cli.md`` writes it anew; a test says that the
page in the repository is current, and that nothing in it lacks a meaning.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer

_HEAD = """\
# The command line

This page is written by `python -m mailgate.cli.reference` from the commands themselves;
`mailgate COMMAND --help` shows the same.

Every command exits with 0 when it has done what it says, with 1 when it found a fault or
nothing to do, and with 2 for wrong usage or configuration. Results go to standard output,
complaints to standard error. What lists or shows takes `--json`: one document, lists as
`{"items": […]}`. Addresses are masked unless `--show-personal-data` asks for them.

## Completion

`mailgate --install-completion` has your shell (bash, zsh, fish, PowerShell) complete
commands, options and names (of streams, relays, producers, templates, schedules, states and
error classes, as the configuration has them) from its next start on; `mailgate
--show-completion` prints what it would install, for a package or a system-wide place:

```sh
mailgate --show-completion > /etc/bash_completion.d/mailgate
```
"""


#: How a value's type is called.
_WORDS = {str: "text", int: "number", float: "number", Path: "path"}


def reference() -> str:
    """The page ``docs/cli.md`` in Markdown."""
    from mailgate.cli.main import app

    root = typer.main.get_command(app)
    lines = [_HEAD.rstrip(), "", "## Before the command", ""]
    lines += ["`mailgate [OPTION…] COMMAND …`", "", *_options(root.params), "", "## Commands", ""]
    every = list(commands(root))
    lines += [
        f"- [`mailgate {' '.join(path)}`](#mailgate-{'-'.join(path)}): {_summary(command)}"
        for path, command in every
    ]
    for path, command in every:
        lines += ["", *_section(path, command)]
    return "\n".join(lines) + "\n"


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with its words, in the order of ``--help``."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from commands(below, (*path, name))


def examples(command: Any) -> list[str]:
    """What the command's help says to type, in order."""
    text = f"{command.help or ''}\n{command.epilog or ''}"
    joined = re.sub(r"\n\s{4,}(?=--)", " ", text)
    return [line.strip() for line in joined.splitlines() if line.strip().startswith("mailgate ")]


def _section(path: tuple[str, ...], command: Any) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = ["mailgate", *path, *(["[OPTION…]"] if options else [])]
    usage += [_argument(p) for p in arguments]
    lines = [f"## mailgate {' '.join(path)}", "", f"`{' '.join(usage)}`", "", _prose(command)]
    if arguments or options:
        lines += ["", *_options([*arguments, *options])]
    if shown := examples(command):
        lines += ["", "```sh", *shown, "```"]
    return lines


def _prose(command: Any) -> str:
    """The description without its examples, one paragraph a line."""
    out = []
    for paragraph in (command.help or "").split("\n\n"):
        kept = [line.strip() for line in paragraph.replace("\b", "").splitlines()]
        if any(line.startswith("mailgate ") for line in kept):
            continue
        out.append(" ".join(line for line in kept if line))
    return "\n\n".join(text for text in out if text)


def _summary(command: Any) -> str:
    return _prose(command).partition("\n\n")[0]


def _options(params: list[Any]) -> list[str]:
    lines = ["| | Value | Default | Meaning |", "|---|---|---|---|"]
    for p in params:
        if p.name == "help":
            continue
        name = ", ".join(f"`{o}`" for o in (*p.opts, *getattr(p, "secondary_opts", ())))
        if p.param_type_name == "argument":
            name = f"`{_argument(p)}`"
        more = " (repeatable)" if p.multiple and "repeatable" not in (p.help or "") else ""
        row = (name, _value(p), _default(p), f"{p.help}{more}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return lines


def _argument(p: Any) -> str:
    name = p.name.upper() + ("…" if p.nargs == -1 else "")
    return name if p.required else f"[{name}]"


def _value(p: Any) -> str:
    if getattr(p, "is_flag", False):
        return ""
    kind = p.type_descriptor.annotation
    kind = next(iter(get_args(kind)), kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{choice.value}`" for choice in kind)
    return _WORDS[kind]


def _default(p: Any) -> str:
    value = getattr(p.default, "value", p.default)
    if p.required:
        return "required"
    if value is None or value is False or value == "" or callable(value):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
