"""``mailgate``: the commands and what they are called.

Owns the tree of commands and the options before them.
"""

from __future__ import annotations

import gc
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mailgate import __version__, failpoints
from mailgate.cli import (
    digests,
    dkim,
    doctor,
    failures,
    journal,
    lanes,
    limits,
    messages,
    parked,
    pausing,
    processes,
    publish,
    relays,
    rereading,
    rules,
    schedules,
    settings,
    status,
    studio,
    suppressions,
    templates,
    up,
    upkeep,
)
from mailgate.cli.examples import show_examples
from mailgate.cli.setting import fail, setting


class Program(TyperGroup):
    """The whole tree; says of a wrong value what is wrong, and not how that was found out."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="mailgate",
    cls=Program,
    help="An asynchronous email gateway: plain JSON on a queue becomes delivered, styled mail.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class LogFormat(StrEnum):
    console = "console"
    json = "json"


class LogLevel(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def _version(asked: bool) -> None:
    if asked:
        print(f"mailgate {__version__}")
        raise typer.Exit


@app.callback()
def before(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Configuration file; else MAILGATE_CONFIG, else ./mailgate.toml, else defaults.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="How log lines are written, over log.format.")
    ] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option(help="Least level logged, over log.level.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and end.")
    ] = False,
) -> None:
    try:
        failpoints.arm(os.environ)
    except failpoints.FailpointsRefused as error:
        fail(str(error), 2)
    setting.path = config
    setting.log_format = log_format.value if log_format else None
    setting.log_level = log_level.value if log_level else None


app.command()(up.up)
app.command()(processes.intake)
app.command()(processes.worker)
app.command()(processes.beat)
app.command()(processes.flower)
app.command()(processes.inbox)
app.command()(studio.studio)
app.command()(publish.send)
app.command()(status.status)
app.command()(doctor.doctor)
app.command()(rereading.reload)
app.add_typer(messages.app, name="messages")
app.add_typer(failures.app, name="failures")
app.add_typer(parked.app, name="parked")
app.add_typer(digests.app, name="digests")
app.add_typer(suppressions.app, name="suppressions")
app.add_typer(relays.app, name="relays")
app.add_typer(limits.app, name="limits")
app.add_typer(lanes.app, name="lanes")
app.add_typer(pausing.app, name="pauses")
app.command()(pausing.pause)
app.command()(pausing.resume)
app.add_typer(schedules.app, name="schedules")
app.add_typer(rules.app, name="rules")
app.add_typer(templates.app, name="templates")
app.add_typer(dkim.app, name="dkim")
app.add_typer(journal.db, name="db")
app.add_typer(settings.config, name="config")
app.command()(upkeep.clean)
app.command()(upkeep.erase)
app.command()(settings.contract)
show_examples(app)


#: Objects that may be made before the collector looks at the youngest: by default 700,
#: and a start, which only makes what stays, would be looked through over and over.
_YOUNG = 20_000


def main() -> None:
    """The program's entry point."""
    gc.set_threshold(_YOUNG, 20, 20)
    app()


if __name__ == "__main__":
    main()
