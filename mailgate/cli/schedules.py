"""``mailgate schedules``: when recurring mail goes, how it went, and firing by hand."""

from __future__ import annotations

import random
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli import completing
from mailgate.cli.filters import JsonOption, LimitOption, PersonalOption, bell
from mailgate.cli.setting import complain, counted, fail, guarded, setting, show_json

if TYPE_CHECKING:
    from mailgate.config.schedules import Schedule
    from mailgate.journal.database import Database
    from mailgate.schedules.firing import Firing, Mail

app = typer.Typer(help="Recurring mail.", no_args_is_help=True)

_COLUMNS = ("name", "cron", "timezone", "next", "last", "result", "recipients", "error")


@app.command("list")
def list_schedules(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List the schedules: when each fires next, and what came of it last."""
    from mailgate.cli.tables import show_items, stamp
    from mailgate.journal import schedules as book
    from mailgate.schedules.calendar import standing

    config, database = setting.config(), setting.database()
    found = guarded(lambda: standing(database, config))[:limit]
    beat = guarded(lambda: database.read_now(book.last_beat))
    for item in found:
        for key in ("next", "last", "try_again"):
            item[key] = stamp(item[key])
        if item["paused"] and not as_json:
            item["next"] = f"paused by {item['paused']}"
    show_items(found, _COLUMNS, as_json, beat=stamp(beat))
    if found and (beat is None or database.now() - beat > 60_000):
        since = f"since {stamp(beat)}" if beat else "yet"
        complain(f"no beat has been seen {since}: nothing fires without mailgate beat")


@app.command()
def run(
    name: Annotated[
        str, typer.Argument(help="A schedule's name.", autocompletion=completing.schedules)
    ],
    at: Annotated[
        str | None,
        typer.Option("--at", help="The time to fire for, RFC 3339 with an offset; now."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the sources and show what would be sent.")
    ] = False,
    as_json: JsonOption = False,
    personal: PersonalOption = False,
) -> None:
    """Fire a schedule by hand, once for each time; also one that failed or was skipped.

    Its window begins where the last fire before it ended.
    """
    from mailgate.journal.arrivals import Arrivals
    from mailgate.model.ids import Ids
    from mailgate.render.catalogue import Catalogue, built_in_root
    from mailgate.schedules.firing import Firing

    config = setting.config()
    schedule = config.schedules.get(name)
    if schedule is None:
        known = ", ".join(config.schedules) or "none"
        fail(f"there is no schedule {name}; there are: {known}", 2)
    database = setting.database()
    moment = _moment(at, database.now())
    roots = (*config.templates.path, built_in_root())
    catalogue = Catalogue.load(roots, default_locale=config.default_locale)
    arrivals = Arrivals(database, Ids(random.random))
    firing = Firing(config, database, arrivals, catalogue.check_data)
    if dry_run:
        _show(firing, name, schedule, moment, as_json, personal)
        return
    document, lanes = guarded(lambda: _fired(firing, database, name, moment))
    ring = bell(config)
    for lane in lanes:
        ring(lane)
    if as_json:
        show_json(document)
    elif document["result"] in ("done", "empty"):
        print(_told(document))
    else:
        complain(f"{name}: {document['error']}")
    if document["result"] not in ("done", "empty"):
        raise typer.Exit(1)


def _fired(
    firing: Firing, database: Database, name: str, at: int
) -> tuple[dict[str, Any], set[Any]]:
    from mailgate.cli.tables import stamp
    from mailgate.journal import schedules as book

    stands = database.run_now(lambda c: book.revive(c, name, at, database.now()))
    document: dict[str, Any] = {"schedule": name, "at": stamp(at)}
    if stands.state != "pending":
        said = f"has fired for {stamp(at)} already: {counted(stands.recipients)}"
        return document | {"result": "over", "error": said}, set()
    done = firing.fire(name, at)
    error = done.error or ("another is firing it" if done.state == "over" else None)
    document |= {"result": done.state, "since": stamp(done.since) if done.since else None}
    document |= {"messages": done.messages, "recipients": done.recipients, "error": error}
    return document, done.lanes


def _told(document: dict[str, Any]) -> str:
    window = f"from {document['since']} to {document['at']}"
    if document["result"] == "empty":
        return f"{document['schedule']}: nothing to send {window}"
    return f"{document['schedule']}: {counted(document['recipients'])}, {window}"


def _show(
    firing: Firing, name: str, schedule: Schedule, at: int, as_json: bool, personal: bool
) -> None:
    """What a fire would send; changes nothing."""
    import json

    from mailgate.cli.tables import masked, stamp
    from mailgate.schedules.firing import FireError

    def prepared() -> Mail | str:
        try:
            return firing.prepare(name, schedule, at)
        except FireError as error:
            return str(error)

    mail = guarded(prepared)
    if isinstance(mail, str):
        fail(f"{name}: {mail}")
    people = [r.email for a in mail.arrivals for r in a.recipients]
    document: dict[str, Any] = {
        "schedule": name,
        "at": stamp(at),
        "since": stamp(mail.since),
        "result": "done" if people else "empty",
        "messages": len(mail.arrivals),
        "recipients": [masked(email, personal) for email in people],
        "refused": sum(len(a.refused) for a in mail.arrivals),
        "rows": None if mail.items is None else len(mail.items),
    }
    if as_json:
        if personal:
            document["documents"] = [json.loads(body) for body in mail.bodies]
        show_json(document)
        return
    print(_told(document | {"recipients": len(people)}) + " (dry run: nothing is sent)")
    if mail.items is not None:
        print(f"  {counted(len(mail.items), 'row')} of data")
    for email in people[:10]:
        print(f"  to {masked(email, personal)}")
    if len(people) > 10:
        print(f"  and {len(people) - 10} more")


def _moment(text: str | None, now: int) -> int:
    if text is None:
        return now // 1000 * 1000
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--at {text}: write a time such as 2030-01-31T09:00:00+01:00", 2)
    if at.tzinfo is None:
        fail(f"--at {text}: needs an offset: end it with Z or with one such as +02:00", 2)
    return int(at.timestamp()) * 1000
