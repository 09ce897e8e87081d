"""``mailgate parked``: bytes that never became a message, with the reason."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mailgate.cli.filters import (
    JsonOption,
    LimitOption,
    PersonalOption,
    ReasonOption,
    bell,
    number,
    whoami,
)
from mailgate.cli.setting import clean, complain, fail, guarded, read_file, setting, show_json

app = typer.Typer(help="What could not be accepted, with the reason.", no_args_is_help=True)


@app.command("list")
def list_parked(
    every: Annotated[bool, typer.Option("--all", help="Also replayed and discarded ones.")] = False,
    limit: LimitOption = 50,
    after: Annotated[str | None, typer.Option(help="The last id of the page before.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what is parked, the newest first."""
    from mailgate.cli.tables import show_items
    from mailgate.journal.search import parked_rows

    states = ("parked", "replayed", "discarded") if every else ("parked",)
    before = number(after) if after else None
    database = setting.database()
    rows = guarded(lambda: database.read_now(lambda c: parked_rows(c, states, limit, before)))
    items = [_item(row) for row in rows]
    columns = ("id", "kind", "state", "producer", "source", "bytes", "received_at", "faults")
    if not as_json:
        for item in items:
            item["faults"] = "; ".join(
                f"{f['field'] or '(whole)'}: {f['rule']}" for f in item["faults"]
            )
    show_items(items, columns, as_json)


@app.command()
def show(
    parked: Annotated[str, typer.Argument(help="A parked row's id.")],
    as_json: JsonOption = False,
    personal: PersonalOption = False,
    raw: Annotated[bool, typer.Option("--raw", help="Only the bytes, as they came.")] = False,
) -> None:
    """Show why it was parked, and with --show-personal-data or --raw what it said."""
    from mailgate.journal.search import parked_row

    database = setting.database()
    row = guarded(lambda: database.read_now(lambda c: parked_row(c, number(parked))))
    if row is None:
        fail(f"there is nothing parked as {parked}")
    if raw:
        sys.stdout.buffer.write(bytes(row["body"]))
        return
    item = _item({**row, "bytes": len(row["body"])})
    if personal:
        item["body"] = bytes(row["body"]).decode("utf-8", "backslashreplace")
    if as_json:
        show_json(item)
        return
    for name, value in item.items():
        if name == "faults":
            for fault in value:
                print(clean(f"  {fault['field'] or '(whole)'}: {fault['rule']}"))
        elif value is not None:
            print(clean(f"{name} {value}"))


@app.command()
def replay(
    parked: Annotated[list[str], typer.Argument(help="Ids of parked rows.")],
    file: Annotated[
        Path | None, typer.Option(help="Corrected bytes to use instead (one id); - for stdin.")
    ] = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Bring parked bytes in again, as new, once what was wrong is mended."""
    import random

    from mailgate.journal.arrivals import Arrivals
    from mailgate.journal.surgery import Act
    from mailgate.model.ids import Ids, spell
    from mailgate.operations.parked import NotParked, Replayed
    from mailgate.operations.parked import replay as bring_in
    from mailgate.render.catalogue import Catalogue, built_in_root

    if file is not None and len(parked) != 1:
        fail("--file goes with one id", 2)
    body = None
    if file is not None:
        body = sys.stdin.buffer.read() if str(file) == "-" else read_file(file)
    numbers = [number(text) for text in parked]
    config = setting.config()
    database = setting.database()
    roots = (*config.templates.path, built_in_root())
    catalogue = Catalogue.load(roots, default_locale=config.default_locale)
    arrivals = Arrivals(database, Ids(random.random))
    act = Act(whoami(), "replay", reason)
    ring = bell(config)
    results: list[dict[str, Any]] = []

    import asyncio

    def bring(one: int) -> Replayed:
        return asyncio.run(
            bring_in(database, arrivals, config, catalogue.check_data, one, act, ring, body)
        )

    for text, one in zip(parked, numbers, strict=True):
        try:
            done = guarded(partial(bring, one))
        except NotParked:
            complain(f"{text} is not parked")
            results.append({"id": text, "accepted": False})
            continue
        message = spell(done.message_id) if done.message_id else None
        for field, rule in done.faults:
            complain(f"{text}: {field}: {rule}" if field else f"{text}: {rule}")
        results.append({"id": text, "accepted": not done.faults, "message": message})
        if not done.faults and not as_json:
            print(f"{text}: accepted as {message}" if message else f"{text}: carried out")
    if as_json:
        show_json({"items": results})
    if not all(r["accepted"] for r in results):
        raise typer.Exit(1)


@app.command()
def discard(
    parked: Annotated[list[str], typer.Argument(help="Ids of parked rows.")],
    reason: ReasonOption = "",
) -> None:
    """Give up on parked rows; they stay on record as discarded."""
    from mailgate.journal.surgery import Act
    from mailgate.operations.parked import discard as give_up

    database = setting.database()
    numbers = [number(text) for text in parked]
    act = Act(whoami(), "discard", reason)
    done = guarded(lambda: give_up(database, numbers, act))
    print(f"discarded: {done}")
    if done != len(numbers):
        raise typer.Exit(1)


def _item(row: dict[str, Any]) -> dict[str, Any]:
    from mailgate.cli.tables import stamp
    from mailgate.model.ids import spell

    return {
        "id": spell(row["id"]),
        "kind": row["kind"],
        "state": row["state"],
        "producer": row["producer"],
        "source": row["source"],
        "bytes": row["bytes"],
        "received_at": stamp(row["received_at"]),
        "message": spell(row["message_id"]) if row["message_id"] else None,
        "resolved_at": stamp(row["resolved_at"]),
        "resolved_by": row["resolved_by"],
        "reason": row["reason"],
        "faults": json.loads(row["faults"]),
    }
