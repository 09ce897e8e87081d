"""``mailgate messages``: find messages, read the story of one, cancel, send again."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from mailgate.cli.expiring import expire
from mailgate.cli.filters import (
    CsvOption,
    JsonOption,
    LimitOption,
    PersonalOption,
    ReasonOption,
    bell,
    left_suppressed,
    number,
    selects,
    whoami,
)
from mailgate.cli.rescheduling import (
    KeyOption,
    NumbersArgument,
    OwnerOption,
    named,
    reschedule,
)
from mailgate.cli.setting import clean, complain, counted, fail, guarded, setting, show_json
from mailgate.cli.story import document as document_of
from mailgate.cli.story import lines as lines_of
from mailgate.cli.story import published
from mailgate.journal.filters import Filter
from mailgate.model.state import State

app = typer.Typer(help="Find messages, read one's whole story.", no_args_is_help=True)

_COLUMNS = ("id", "recipient", "state", "error_class", "attempts", "producer", "template")


@app.command("list")
@selects
def list_messages(
    choice: Filter,
    limit: LimitOption = 50,
    after: Annotated[
        str | None, typer.Option(help="The next page: `next` of the page before.")
    ] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    personal: PersonalOption = False,
) -> None:
    """List recipients with their messages, the newest first.

    mailgate messages list --state deferred --relay main --reply "too many" --since 2h
    """
    from mailgate.cli.tables import found_item, show_items
    from mailgate.journal.search import find
    from mailgate.model.ids import spell

    before = number(after) if after else None
    database = setting.database()
    found = guarded(lambda: database.read_now(lambda c: find(c, choice, limit, before)))
    following = spell(found[-1].recipient_id) if len(found) == limit else None
    items = [found_item(f, personal) for f in found]
    columns = (*_COLUMNS, "accepted_at")
    show_items(items, columns, as_json, as_csv, next=following)
    if following and not (as_json or as_csv):
        complain(f"there are more: --after {following}")


@app.command("count")
@selects
def count_messages(
    choice: Filter,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            help="state, producer, stream, template, error-class, lane, relay or domain; "
            "repeatable. By state, when none is given.",
        ),
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Count recipients by group, the largest first.

    mailgate messages count --since 1d --by domain --by state
    """
    from mailgate.cli.tables import show_items
    from mailgate.journal.search import GROUPS, counts

    # Each once, in the order asked for.
    names = list(dict.fromkeys(name.replace("-", "_") for name in by or ["state"]))
    for name in names:
        if name not in GROUPS:
            known = ", ".join(group.replace("_", "-") for group in GROUPS)
            fail(f"--by {name}: must be one of {known}", 2)
    database = setting.database()
    rows = guarded(lambda: database.read_now(lambda c: counts(c, choice, names)))
    show_items(rows[:limit], (*names, "count"), as_json, as_csv, groups=len(rows))


@app.command()
def show(
    message: Annotated[str | None, typer.Argument(help="A message's id.")] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="A producer's idempotency key or id, in place of our id."),
    ] = None,
    producer: OwnerOption = None,
    as_json: JsonOption = False,
    personal: PersonalOption = False,
) -> None:
    """Tell the whole story of one message, in order."""
    import asyncio

    from mailgate.journal.search import story

    if message is not None and key is not None:
        fail("name a message by its id, or by --key", 2)
    if message is None:
        [message] = named(None, [key] if key is not None else None, producer)
    found = number(message)
    database = setting.database()
    told = guarded(lambda: database.read_now(lambda c: story(c, found)))
    if told is None:
        fail(f"there is no message {message}; by its producer's key: --key")
    document = document_of(told, personal)
    published(document, told)
    waits = guarded(lambda: asyncio.run(_waits(told)))
    for recipient in document["recipients"]:
        id_ = number(recipient["id"])
        recipient["waits_for"] = waits.get(id_) or _gathers(told["digests"].get(id_))
    if as_json:
        show_json(document)
        return
    for line in lines_of(document):
        print(clean(line))


@app.command()
def cancel(
    message: NumbersArgument = None,
    reason: ReasonOption = "",
    key: KeyOption = None,
    producer: OwnerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel what of these messages still waits; what is sent or being sent stays."""
    _move(named(message, key, producer), State.CANCELLED, "cancel", reason, as_json)


@app.command()
def resend(
    message: Annotated[list[str], typer.Argument(help="Message ids.")],
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Send again what of these messages failed, bounced, expired, is held or uncertain."""
    _move(message, State.QUEUED, "resend", reason, as_json)


app.command()(reschedule)
app.command()(expire)


def _move(numbers: list[str], target: State, verb: str, reason: str, as_json: bool) -> None:
    from mailgate.journal.database import Connection
    from mailgate.journal.search import ids as recipients_of
    from mailgate.journal.surgery import Act, Moved, Surgery

    ids = [number(n) for n in numbers]
    config = setting.config()
    database = setting.database()
    act = Act(whoami(), verb, reason, json.dumps({"messages": numbers}))

    def change(connection: Connection) -> Moved:
        people = recipients_of(connection, Filter(messages=tuple(ids)), 100_000)
        return Surgery(database, config.categories).move(connection, people, target, act)

    moved = guarded(lambda: database.run_now(change))
    if target is State.QUEUED:
        ring = bell(config)
        for lane in moved.lanes:
            ring(lane)
    done = len(moved.recipient_ids)
    left_suppressed(moved.suppressed)
    if as_json:
        show_json({verb: done})
    else:
        print(f"{verb}: {counted(done)}")
    if not done:
        raise typer.Exit(1)


async def _waits(told: dict[str, Any]) -> dict[int, str]:
    """What those wait for that wait, by recipient."""
    from mailgate.gateway import open_limiter
    from mailgate.model.state import WAITING
    from mailgate.operations.standing import standing
    from mailgate.operations.waiting import reasons

    if not any(State(r["state"]) in WAITING for r in told["recipients"]):
        return {}
    config, database = setting.config(), setting.database()
    found = standing(database, config)
    limiter = open_limiter(config, database)
    try:
        return await reasons(told, found, config, limiter)
    finally:
        await limiter.close()


def _gathers(digest: dict[str, Any] | None) -> str | None:
    """What one waits for that waits for a digest."""
    from mailgate.cli.tables import when

    if digest is None or digest["name"] is None:
        return None
    key = f" {digest['key']}" if digest["key"] else ""
    return f"the digest {digest['name']}{key}, which goes at {when(digest['due_at'])}"
