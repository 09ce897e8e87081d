"""``mailgate failures``: what went wrong, by class, and sending it again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate.cli import completing
from mailgate.cli.changing import (
    Change,
    DryRunOption,
    MessageArgument,
    MostOption,
    YesOption,
    say_which,
)
from mailgate.cli.filters import (
    CsvOption,
    JsonOption,
    LimitOption,
    PersonalOption,
    ReasonOption,
    selects,
    wanted,
)
from mailgate.cli.setting import fail, guarded, setting
from mailgate.journal.filters import TROUBLE, Filter
from mailgate.model.state import RESENDABLE, State

if TYPE_CHECKING:
    from mailgate.config.terms import Rate
    from mailgate.model.address import Address

app = typer.Typer(help="Failures: by class, and sending them again.", no_args_is_help=True)


@app.command("list")
@selects
def list_failures(
    choice: Filter,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    personal: PersonalOption = False,
) -> None:
    """Failures by state, error class and template: how many, with the relay's last words.

    mailgate failures list --since 1d --relay main
    """
    from mailgate.cli.tables import show_items, stamp
    from mailgate.journal.search import failure_groups
    from mailgate.log import mask_text

    choice = replace(choice, states=choice.states or TROUBLE)
    database = setting.database()
    groups = guarded(lambda: database.read_now(lambda c: failure_groups(c, choice)))[:limit]
    for group in groups:
        group["latest_at"] = stamp(group["latest_at"])
        if not personal:
            group["reply"] = mask_text(group["reply"])
    columns = ("state", "error_class", "template", "count", "latest_at", "reply")
    show_items(groups, columns, as_json, as_csv)


@app.command()
def show(
    error_class: Annotated[
        str,
        typer.Argument(help="As failures list shows it.", autocompletion=completing.error_classes),
    ],
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    personal: PersonalOption = False,
) -> None:
    """The recipients of one error class, the newest first."""
    from mailgate.cli.tables import found_item, show_items
    from mailgate.journal.search import find

    choice = replace(wanted(error_class=error_class), states=TROUBLE)
    database = setting.database()
    found = guarded(lambda: database.read_now(lambda c: find(c, choice, limit, None)))
    items = [found_item(f, personal) for f in found]
    columns = ("id", "recipient", "state", "attempts", "template", "changed_at")
    show_items(items, columns, as_json, as_csv)


@app.command()
@selects
def resend(
    choice: Filter,
    message: MessageArgument = None,
    uncertain: Annotated[
        bool,
        typer.Option("--uncertain", help="Those of unknown outcome, which may have arrived."),
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Every failure there is.")] = False,
    to: Annotated[
        str | None, typer.Option("--to", help="Another address, for one recipient.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--relay", help="The relay to try first.", autocompletion=completing.relays),
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", help="No faster than this: 10/s, 100/m.")
    ] = None,
    limit: MostOption = None,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Send failures again: by id, or by any filter.

    Uncertain ones may have arrived: they are included only by id, or with --uncertain.
    Interrupted, the same command goes on where it stopped.

    \b
    mailgate failures resend --error-class mailbox_full --since 2d --dry-run
    mailgate failures resend --template notice --rate 10/s --reason "relay mended"
    mailgate failures resend MESSAGE --to ann@example.com --reason "typing error"
    """
    from mailgate.operations.resend import How

    if uncertain:
        states: tuple[State, ...] = (*choice.states, State.UNCERTAIN)
    else:
        sure = tuple(s for s in TROUBLE if message or s is not State.UNCERTAIN)
        states = choice.states or sure
    choice = replace(choice, states=tuple(s for s in states if s in RESENDABLE))
    config = setting.config()
    if by is not None and by not in config.relays:
        fail(f"--relay {by}: is no relay; the relays are: {', '.join(config.relays) or 'none'}", 2)
    how = How(by, _rate(rate))
    change = Change(config, choice, State.QUEUED, "resend", reason, how)
    if to is not None:
        change.corrected(_address(to), dry_run, as_json)
        return
    say_which(choice, every, " (or --all)")
    change.run(dry_run, yes, limit, as_json)


@app.command()
@selects
def discard(
    choice: Filter,
    message: MessageArgument = None,
    limit: MostOption = None,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give up on recipients that are held; they are cancelled and stay on record."""
    choice = replace(choice, states=(State.HELD,))
    say_which(choice, False, "")
    change = Change(setting.config(), choice, State.CANCELLED, "discard", reason)
    change.run(dry_run, yes, limit, as_json)


@app.command()
@selects
def confirm(
    choice: Filter,
    message: MessageArgument = None,
    limit: MostOption = None,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say that uncertain mail did arrive, as the relay's own log shows: it is sent.

    mailgate failures confirm MESSAGE --reason "in the relay's log as 4bXq2"
    """
    choice = replace(choice, states=(State.UNCERTAIN,))
    say_which(choice, False, "")
    change = Change(setting.config(), choice, State.SENT, "confirm", reason)
    change.run(dry_run, yes, limit, as_json)


def _rate(text: str | None) -> Rate | None:
    from mailgate.config.terms import parse_rate

    try:
        return None if text is None else parse_rate(text)
    except ValueError as error:
        fail(f"--rate: {error}", 2)


def _address(text: str) -> Address:
    from mailgate.model.address import Address, AddressError, wire_form

    try:
        return Address(wire_form(text))
    except AddressError as error:
        fail(f"--to {text}: must be one email address ({error})", 2)
