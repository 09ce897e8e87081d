"""``mailgate relays``: how they stand, trying one, pausing and resuming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli import completing
from mailgate.cli.filters import JsonOption, LimitOption, PersonalOption, ReasonOption
from mailgate.cli.pausing import change
from mailgate.cli.setting import clean, fail, guarded, passwords, setting, show_json

if TYPE_CHECKING:
    from mailgate.smtp.check import Look

app = typer.Typer(help="Relays: how they stand, and pausing them.", no_args_is_help=True)

NameArgument = Annotated[
    str,
    typer.Argument(help="A relay's name in the configuration.", autocompletion=completing.relays),
]


@app.command("list")
def list_relays(
    limit: LimitOption = 50, as_json: JsonOption = False, personal: PersonalOption = False
) -> None:
    """List the relays: open or closed, since when, why, and how fast mail may go."""
    from mailgate.cli.tables import show_items, stamp
    from mailgate.log import mask_text
    from mailgate.operations.standing import relays, standing

    config = setting.config()
    database = setting.database()
    items = relays(guarded(lambda: standing(database, config)), config)[:limit]
    for item in items:
        for one in (item, *item["domains"], *item["senders"]):
            one["since"], one["until"] = stamp(one["since"]), stamp(one["until"])
            if one["reply"] and not personal:
                one["reply"] = mask_text(one["reply"])
    if as_json:
        show_json({"items": items})
        return
    columns = ("name", "host", "state", "since", "until", "reason", "reply", "effective_rate")
    show_items([row for item in items for row in _rows(item)], columns, as_json=False)


def _rows(item: dict[str, Any]) -> list[dict[str, Any]]:
    """The relay, and below it each destination and sender that is not well there."""
    rows = [item]
    rows += [{**one, "name": f"  to {one['name']}"} for one in item["domains"]]
    rows += [{**one, "name": f"  from {one['name']}"} for one in item["senders"]]
    return rows


@app.command("test")
def try_relay(name: NameArgument, as_json: JsonOption = False) -> None:
    """Connect, greet, encrypt and log in, without any mail; exit 1 when that fails."""
    import asyncio

    from mailgate.smtp.check import look

    config = setting.config()
    relay = config.relays.get(name)
    if relay is None:
        fail(f"no relay is called {name}; there are: {', '.join(config.relays) or 'none'}", 2)
    secret = passwords(config).get(name)
    try:
        found = asyncio.run(look(relay, secret))
    except OSError as error:
        fail(f"relays.{name}.ca_file cannot be read: {error.strerror}", 2)
    if as_json:
        show_json({"name": name, **_document(found)})
        raise typer.Exit(1 if found.failure is not None else 0)
    failure = found.failure
    if failure is not None:
        print(f"{name} failed at {failure.phase.value}: {failure.error_class}")
        print(f"  {clean(str(failure.reply))}")
    else:
        print(f"{name} takes mail: ready in {found.took * 1000:.0f} ms")
        print(f"  offers {', '.join(_offers(found)) or 'no extensions'}")
    for step in found.steps:
        print(f"  {step.phase.value:<8} {step.took * 1000:5.0f} ms  {clean(step.found)}")
    raise typer.Exit(1 if found.failure is not None else 0)


def _document(found: Look) -> dict[str, Any]:
    failure = found.failure
    return {
        "ok": failure is None,
        "took_ms": int(found.took * 1000),
        "offers": _offers(found),
        "phase": failure.phase.value if failure else None,
        "error_class": failure.error_class if failure else None,
        "reply": str(failure.reply) if failure else None,
        "steps": [
            {"phase": step.phase.value, "found": step.found, "took_ms": int(step.took * 1000)}
            for step in found.steps
        ],
    }


def _offers(found: Look) -> list[str]:
    offers = found.offers
    if offers is None:
        return []
    said = {
        "PIPELINING": offers.pipelining,
        "8BITMIME": offers.eight_bit,
        "SMTPUTF8": offers.smtputf8,
        f"SIZE {offers.size}" if offers.size else "SIZE": offers.size_parameter,
    }
    words = [word for word, offered in said.items() if offered]
    return words + [f"AUTH {mechanism.upper()}" for mechanism in sorted(offers.auth)]


@app.command()
def pause(name: NameArgument, reason: ReasonOption, as_json: JsonOption = False) -> None:
    """Send nothing through a relay until it is resumed; its mail takes the next or waits."""
    change("relay", name, reason, as_json, begin=True)


@app.command()
def resume(
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Send through a relay again; where its breaker is open, a probe goes at once."""
    change("relay", name, reason, as_json, begin=False)
