"""``mailgate rules``: what a relay's reply means, and which rule says so."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from mailgate.cli import completing
from mailgate.cli.filters import JsonOption
from mailgate.cli.setting import clean, fail, setting, show_json

app = typer.Typer(help="What relays' refusals mean.", no_args_is_help=True)

_BUILT_IN = "built-in"


@app.command("test")
def explain(
    reply: Annotated[
        str, typer.Argument(help="As the relay said it: '550 5.1.1 User unknown'; - for stdin.")
    ],
    phase: Annotated[
        str, typer.Option(help="What it was said to: connect … mail, rcpt, data, body, dot.")
    ] = "rcpt",
    relay: Annotated[
        str,
        typer.Option(
            help="Which relay said it, for rules of relays.", autocompletion=completing.relays
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Show which rule a reply meets and what follows from it."""
    from mailgate.model.state import Phase
    from mailgate.smtp.classify import table_for
    from mailgate.smtp.reply import MalformedReply, parse_reply

    phases = [p.value for p in Phase if p is not Phase.RENDER]
    if phase not in phases:
        fail(f"--phase {phase}: must be one of {', '.join(phases)}", 2)
    config = setting.config()
    if relay and relay not in config.relays:
        known = ", ".join(config.relays) or "none"
        fail(f"--relay {relay}: there is no such relay; there are: {known}", 2)
    text = sys.stdin.read(100_000) if reply == "-" else reply
    if not text[:3].isdecimal():
        fail("that is no reply of a relay, such as 550 5.1.1 No such user", 2)
    try:
        said = parse_reply(text)
    except (MalformedReply, UnicodeEncodeError) as error:
        fail(f"that is no reply of a relay: {error}", 2)
    if said.code < 400:
        fail(f"{said.code} is no refusal", 2)
    table = table_for(config.rules, relay)
    rule = table.match(Phase(phase), said)
    outcome = table.classify(Phase(phase), said)
    found: dict[str, Any] = {
        "rule": (rule.name if rule else "") or _BUILT_IN,
        "then": outcome.kind.value,
        "error_class": outcome.error_class,
        "scope": outcome.scope.value,
        "suppress": outcome.suppress.value,
        "wait": outcome.retry_after,
        "code": said.code,
        "enhanced": said.enhanced or None,
        "text": said.text,
    }
    if rule is not None:
        found["because"] = {
            "phases": sorted(rule.phases, key=phases.index),
            "codes": rule.codes.split(),
            "enhanced": rule.enhanced.split(),
            "text": rule.text or None,
        }
    if as_json:
        show_json(found)
        return
    for key in ("rule", "then", "error_class", "scope", "suppress", "wait", "enhanced"):
        if found[key] is not None:
            value = f"{found[key]:g} s" if key == "wait" else found[key]
            print(clean(f"{key.replace('_', ' ')}: {value}"))


@app.command("list")
def list_rules(as_json: JsonOption = False) -> None:
    """List the configuration's own rules, in the order in which they are tried."""
    from mailgate.cli.tables import show_items

    items = []
    for name, rule in setting.config().rules.items():
        said = rule.model_dump(mode="json", exclude_unset=True)
        then = said.pop("then")
        items.append({"name": name, "then": then, "says": said})
    show_items(items, ("name", "then", "says"), as_json)
