"""``mailgate messages``: find messages, read the story of one, cancel, send again."""

from __future__ import annotations

import asyncio
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
from mailgate.cli.setting import clean, complain, fail, guarded, setting, show_json
from mailgate.journal.filters import Filter
from mailgate.model.state import State

app = typer.Typer(help="Find messages, read one's whole story.", no_args_is_help=True)

#: Items of a digest that are listed for people.
_ITEMS = 20
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
    message: Annotated[str, typer.Argument(help="A message's id.")],
    as_json: JsonOption = False,
    personal: PersonalOption = False,
) -> None:
    """Tell the whole story of one message, in order."""
    from mailgate.journal.search import story

    found = number(message)
    database = setting.database()
    told = guarded(lambda: database.read_now(lambda c: story(c, found)))
    if told is None:
        fail(f"there is no message {message}; by its key: mailgate messages list --key …")
    document = _document(told, personal)
    _published(document, told)
    waits = guarded(lambda: asyncio.run(_waits(told)))
    for recipient in document["recipients"]:
        id_ = number(recipient["id"])
        recipient["waits_for"] = waits.get(id_) or _gathers(told["digests"].get(id_))
    if as_json:
        show_json(document)
        return
    for line in _lines(document):
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
        print(f"{verb}: {done} recipients")
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


def _document(told: dict[str, Any], personal: bool) -> dict[str, Any]:
    from mailgate.cli.tables import masked, stamp
    from mailgate.model.ids import spell

    m = told["message"]
    people = {r["id"]: r for r in told["recipients"]}
    document: dict[str, Any] = {
        "id": spell(m["id"]),
        "producer": m["producer"],
        "identity": m["identity"],
        "stream": m["stream"],
        "template": m["template"],
        "accepted_at": stamp(m["accepted_at"]),
        "send_at": stamp(m["send_at"]),
        "expires_at": stamp(m["expires_at"]),
        "tags": json.loads(m["tags"]) if m["tags"] else [],
        "traceparent": m["traceparent"],
        "recipients": [
            {
                "id": spell(r["id"]),
                "kind": r["kind"],
                "recipient": masked(r["email"], personal),
                "state": r["state"],
                "error_class": r["error_class"],
                "attempts": r["attempts"],
                "claims": r["claims"],
                "due_at": stamp(r["due_at"]),
                "digest": spell(told["digests"][r["id"]]["digest_id"])
                if r["id"] in told["digests"]
                else None,
            }
            for r in people.values()
        ],
        "attempts": [
            {
                "recipient": spell(a["recipient_id"]),
                "n": a["n"],
                "relay": a["relay"],
                "started_at": stamp(a["started_at"]),
                "duration_ms": a["ended_at"] - a["started_at"],
                "result": a["kind"],
                "phase": a["phase"],
                "code": a["code"],
                "enhanced": a["enhanced"],
                "reply": a["reply"] if personal else _without_addresses(a["reply"]),
                "error_class": a["error_class"],
            }
            for a in told["attempts"]
        ],
        "events": [
            {
                "at": stamp(e["at"]),
                "recipient": spell(e["recipient_id"]) if e["recipient_id"] else None,
                "seq": e["seq"],
                "event": e["kind"],
                "detail": json.loads(e["detail"]) if e["detail"] else {},
            }
            for e in told["events"]
        ],
        "parked": [
            {"id": spell(p["id"]), "kind": p["kind"], "state": p["state"]} for p in told["parked"]
        ],
    }
    if told["items"]:
        document["items"] = [
            {
                "message": spell(i["message_id"]),
                "id": i["item"],
                "accepted_at": stamp(i["accepted_at"]),
            }
            for i in told["items"]
        ]
    if personal:
        document["body"] = json.loads(m["body"])
        document["metadata"] = json.loads(m["metadata"]) if m["metadata"] else {}
    return document


def _published(document: dict[str, Any], told: dict[str, Any]) -> None:
    """Say of each event when its producer was told; of those that nobody is told, nothing."""
    from mailgate.cli.tables import stamp
    from mailgate.journal.outbox import NOT_YET

    config, producer = setting.config(), told["message"]["producer"]
    for event, row in zip(document["events"], told["events"], strict=True):
        if config.tells(row["kind"], producer):
            at = told["published"][row["id"]]
            event["published"] = at != NOT_YET
            event["published_at"] = None if at in (None, NOT_YET) else stamp(at)


def _without_addresses(text: str) -> str:
    from mailgate.log import mask_text

    return mask_text(text)


def _lines(d: dict[str, Any]) -> list[str]:
    """The story for people: what it is, who gets it, and what happened, in order of time."""
    out = [f"message {d['id']}  from {d['producer']}, stream {d['stream']}"]
    out.append(f"  template {d['template'] or '(none)'}, identity {d['identity']}")
    for r in d["recipients"]:
        class_ = f" ({r['error_class']})" if r["error_class"] else ""
        out.append(f"  {r['kind']} {r['recipient']}: {r['state']}{class_}  [{r['id']}]")
        if r["waits_for"]:
            out.append(f"    waits for {r['waits_for']}")
        elif r["digest"]:
            out.append(f"    went in the digest {r['digest']}")
    if items := d.get("items", []):
        out.append(f"  a digest of {len(items)} items")
        out += [f"    {i['message']}" + (f"  {i['id']}" * bool(i["id"])) for i in items[:_ITEMS]]
        if len(items) > _ITEMS:
            out.append(f"    and {len(items) - _ITEMS} more: --json has them all")
    story: list[tuple[str, int, str]] = []
    for e in d["events"]:
        who = f"[{e['recipient']}] " if e["recipient"] and len(d["recipients"]) > 1 else ""
        # How everybody stood when an answer was given is for who asked.
        said = {k: v for k, v in e["detail"].items() if v != "" and k != "recipients"}
        detail = ", ".join(f"{k} {_said(k, v)}" for k, v in said.items())
        text = f"{who}{e['event']}" + (f": {detail}" if detail else "") + _told(e)
        story.append((e["at"], 1 if e["seq"] else -1, text))
    for a in d["attempts"]:
        who = f"[{a['recipient']}] " if len(d["recipients"]) > 1 else ""
        reply = f"{a['code'] or ''} {a['reply']}".strip()
        story.append(
            (
                a["started_at"],
                0,
                f"{who}attempt {a['n']} by {a['relay']} ended at "
                f"{a['phase']} after {a['duration_ms']} ms: {reply}",
            )
        )
    out.append("")
    # Only by time: events of one moment (uncertain, then queued again) keep their order.
    story.sort(key=lambda one: one[:2])
    out += [f"  {at[:19].replace('T', ' ')}Z  {text}" for at, _, text in story]
    out += [f"  parked {p['id']}: {p['kind']} ({p['state']})" for p in d["parked"]]
    return out


def _told(event: dict[str, Any]) -> str:
    """Whether the producer knows."""
    if "published" not in event:
        return ""
    at = event["published_at"]
    if not event["published"]:
        return "; not published yet"
    return f"; published at {at[11:19]}Z" if at else "; published"


def _said(key: str, value: object) -> str:
    from mailgate.cli.tables import when

    return when(int(str(value))) if key == "due_at" else str(value)
