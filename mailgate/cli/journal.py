"""``mailgate db``: the journal's schema, and its return from a backup."""

from __future__ import annotations

from typing import Annotated

import typer

from mailgate.cli.filters import ReasonOption
from mailgate.cli.setting import counted, fail, guarded, setting, show_json

db = typer.Typer(help="The journal's schema, and restoring it.", no_args_is_help=True)

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


@db.command()
def restored(
    until: Annotated[
        str | None,
        typer.Option(
            help="When the lost journal was last worked with: now by default. "
            "What is due later goes on by itself."
        ),
    ] = None,
    reason: ReasonOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say that the journal was restored from a backup, before workers start again.

    What it calls waiting may have been sent since: all of it that was due becomes uncertain
    (error class "restored"), and waits for failures confirm or resend. Until this has run,
    workers that knew the lost journal send nothing.

    \b
    mailgate db restored --dry-run
    mailgate db restored --until 2026-03-01T09:00:00Z --reason "disk died, backup of 08:00"
    """
    import json

    from mailgate.cli.filters import moment, whoami
    from mailgate.journal.surgery import Act
    from mailgate.operations import restoring

    config = setting.config()
    database = setting.database()
    last = moment(until, "--until") or database.now()
    if alive := guarded(lambda: restoring.living(database, config)):
        fail(f"{alive} worker processes are alive: stop all workers first")
    if dry_run:
        count = guarded(lambda: restoring.in_doubt(database, last))
    else:
        act = Act(whoami(), "restored", reason, json.dumps({"until": last}))
        count = guarded(lambda: sum(n for n in restoring.doubt_all(database, last, act)))
    if as_json:
        show_json({"uncertain": count, "dry_run": dry_run})
    else:
        verb = "would be" if dry_run else "is" if count == 1 else "are"
        print(f"{counted(count)} {verb} uncertain")
        if count and not dry_run:
            print("see: mailgate failures show restored")
