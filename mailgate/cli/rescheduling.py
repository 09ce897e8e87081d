"""``mailgate messages reschedule``, and messages that are named by a producer's key."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mailgate.cli.filters import JsonOption, ReasonOption, bell, number, whoami
from mailgate.cli.setting import complain, fail, guarded, setting, show_json

NumbersArgument = Annotated[list[str] | None, typer.Argument(help="Message ids.")]
KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--key", help="A producer's idempotency key or id, in place of our id; repeatable."
    ),
]
OwnerOption = Annotated[
    str | None, typer.Option("--producer", help="Whose key it is, where several have the same.")
]


def named(message: list[str] | None, key: list[str] | None, producer: str | None) -> list[str]:
    """The ids of the messages that are meant; ends the program when a key names none or two."""
    from mailgate.journal.search import by_key
    from mailgate.model.ids import spell

    found = list(message or ())
    database = setting.database()
    for one in key or ():

        def look(connection: Any, one: str = one) -> list[tuple[int, str]]:
            return by_key(connection, one, producer)

        owners = guarded(lambda look=look: database.read_now(look))  # type: ignore[misc]
        if not owners:
            fail(f"no message has the key {one}" + (f" of {producer}" if producer else ""))
        if len(owners) > 1:
            names = ", ".join(sorted({owner for _, owner in owners}))
            fail(f"several messages have the key {one}: say --producer, one of {names}", 2)
        found.append(spell(owners[0][0]))
    if not found:
        fail("name a message by its id, or by --key", 2)
    return found


def reschedule(
    message: NumbersArgument = None,
    *,
    send_at: Annotated[
        str, typer.Option("--send-at", help="When: RFC 3339 with an offset, or now.")
    ],
    expires_at: Annotated[
        str | None, typer.Option("--expires-at", help="Never after this; likewise.")
    ] = None,
    reason: ReasonOption = "",
    key: KeyOption = None,
    producer: OwnerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send messages at another time, of which nothing was sent or tried yet."""
    from mailgate.intake.commands import lifetimes
    from mailgate.journal.rescheduling import When
    from mailgate.journal.surgery import Act
    from mailgate.operations.rescheduling import move

    numbers = named(message, key, producer)
    config, database = setting.config(), setting.database()
    when = When(
        _instant(send_at, "--send-at"),
        None if expires_at is None else _instant(expires_at, "--expires-at"),
        lifetimes(config),
    )
    if when.expires_at is not None and when.expires_at <= when.send_at:
        fail("--expires-at: must be later than --send-at", 2)
    act = Act(whoami(), "reschedule", reason, json.dumps({"messages": numbers, "to": send_at}))
    ring = bell(config)
    ids = [number(n) for n in numbers]
    done = guarded(lambda: move(database, ids, when, act, ring))
    items = [
        {"id": text, "result": result, "reason": why}
        for text, (result, why) in zip(numbers, done, strict=True)
    ]
    if as_json:
        show_json({"items": items})
    for item in items:
        text, result = item["id"], item["result"]
        if result == "done":
            if not as_json:
                print(f"{text}: rescheduled")
        elif not as_json:
            complain(f"{text}: {_WHY.get(str(result), item['reason'])}")
    if any(item["result"] != "done" for item in items):
        raise typer.Exit(1)


_WHY = {
    "unknown": "there is no such message",
    "too_late": "it is being sent, was sent or tried, or is cancelled",
}


def _instant(text: str, option: str) -> int:
    """A time with its offset, in milliseconds since 1970; a wrong one ends the program."""
    if text == "now":
        return int(datetime.now(UTC).timestamp() * 1000)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text}: write a time such as 2030-01-31T09:00:00+01:00, or now", 2)
    if at.tzinfo is None:
        fail(f"{option} {text}: needs an offset: end it with Z or with one such as +02:00", 2)
    return int(at.timestamp() * 1000)
