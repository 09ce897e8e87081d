"""``mailgate config`` and ``mailgate contract``: what is set, and what producers may say."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mailgate.cli.setting import complain, fail, setting, show_json

config = typer.Typer(help="The configuration.", no_args_is_help=True)


@config.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Show the whole configuration as it is in force, with secrets masked."""
    from mailgate.config.review import masked

    document = masked(setting.config())
    if as_json:
        show_json(document)
        return
    for line in _lines("", document):
        print(line)


@config.command()
def check() -> None:
    """Report every error at once, and warn about what is dangerous; exit 2 on errors."""
    from mailgate.config.load import secret_faults, warnings
    from mailgate.render.catalogue import folders
    from mailgate.render.dkim_keys import read_keys

    said = setting.said()
    keys = read_keys(said.dkim)
    found = [str(fault) for fault in (*secret_faults(said, os.environ), *keys.faults)]
    for root in said.templates.path:
        try:
            folders(root)
        except FileNotFoundError as error:
            found.append(f"templates.path: {error}")
    for fault in found:
        complain(fault)
    for warning in (*warnings(said), *keys.warnings):
        complain(f"warning: {warning}")
    if found:
        raise typer.Exit(2)
    print("the configuration is good")


def contract(
    events: Annotated[
        bool, typer.Option("--events", help="Of what producers are told instead.")
    ] = False,
    commands: Annotated[
        bool, typer.Option("--commands", help="Of what they may ask: cancel, reschedule, ask.")
    ] = False,
) -> None:
    """Print the JSON Schema of what producers publish."""
    from mailgate.contract import commands as asked
    from mailgate.contract import event, schema

    if events and commands:
        fail("--events and --commands: one at a time", 2)
    show_json((event if events else asked if commands else schema).json_schema())


def _lines(place: str, value: object) -> list[str]:
    if isinstance(value, dict) and value:
        out = []
        for key, inner in value.items():
            out += _lines(f"{place}.{key}" if place else str(key), inner)
        return out
    return [f"{place} = {value!r}" if isinstance(value, str) else f"{place} = {value}"]
