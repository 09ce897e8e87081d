"""``mailgate``: the program, and the options before its commands (``tree.py``)."""

from __future__ import annotations

import gc
import io
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mailgate import __version__, failpoints, tracing
from mailgate.cli.setting import fail, setting
from mailgate.cli.tree import Program

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


#: Objects that may be made before the collector looks at the youngest: by default 700,
#: and a start, which only makes what stays, would be looked through over and over.
_YOUNG = 20_000


def main() -> None:
    """The program's entry point."""
    gc.set_threshold(_YOUNG, 20, 20)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal of another encoding has no character for is shown escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    tracing.withhold()
    app()


if __name__ == "__main__":
    main()
