"""``mailgate db``: the journal's schema."""

from __future__ import annotations

from typing import Annotated

import typer

from mailgate.cli.setting import guarded, setting, show_json

db = typer.Typer(help="The journal's schema.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@db.command()
def upgrade() -> None:
    """Bring the journal's schema up to date; safe to run again, and from several machines."""
    from mailgate.journal import schema

    url = setting.config().journal.url or ""
    guarded(lambda: schema.upgrade(url))
    print(f"the journal is at {schema.latest()}")


@db.command()
def current(as_json: JsonOption = False) -> None:
    """Say the schema's revision; exit 1 when it is older than this version's."""
    from mailgate.journal import revision

    url = setting.config().journal.url or ""
    behind = guarded(lambda: revision.behind(url))
    found = behind or revision.current(url)
    if as_json:
        show_json({"current": found, "latest": revision.LATEST})
    else:
        print(f"{found} (latest {revision.LATEST})")
    if behind:
        raise typer.Exit(1)
