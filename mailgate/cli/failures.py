"""``mailgate failures``: what went wrong, by class, and sending it again."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from mailgate.cli.filters import (
    DomainOption,
    ErrorOption,
    JsonOption,
    LimitOption,
    PersonalOption,
    ProducerOption,
    ReasonOption,
    RecipientOption,
    SinceOption,
    StateOption,
    StreamOption,
    TagOption,
    TemplateOption,
    UntilOption,
    bell,
    wanted,
    whoami,
)
from mailgate.cli.setting import fail, guarded, setting, show_json
from mailgate.model.state import State

app = typer.Typer(help="Failures: by class, and sending them again.", no_args_is_help=True)

#: A change of more recipients than this is asked about first.
ASK_ABOVE = 20

MessageArgument = Annotated[list[str] | None, typer.Argument(help="Message ids.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
MostOption = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")]


@app.command("list")
def list_failures(
    state: StateOption = None,
    producer: ProducerOption = None,
    stream: StreamOption = None,
    template: TemplateOption = None,
    tag: TagOption = None,
    domain: DomainOption = None,
    error_class: ErrorOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    personal: PersonalOption = False,
) -> None:
    """Failures by state, error class and template: how many, with the relay's last words."""
    from mailgate.cli.tables import show_items, stamp
    from mailgate.journal.search import TROUBLE, failure_groups
    from mailgate.log import mask_text

    choice = wanted(
        states=state or [s.value for s in TROUBLE],
        producer=producer,
        stream=stream,
        template=template,
        tag=tag,
        domain=domain,
        error_class=error_class,
        since=since,
        until=until,
    )
    database = setting.database()
    groups = guarded(lambda: database.read_now(lambda c: failure_groups(c, choice)))[:limit]
    for group in groups:
        group["latest_at"] = stamp(group["latest_at"])
        if not personal:
            group["reply"] = mask_text(group["reply"])
    columns = ("state", "error_class", "template", "count", "latest_at", "reply")
    show_items(groups, columns, as_json)


@app.command()
def show(
    error_class: Annotated[str, typer.Argument(help="As failures list shows it.")],
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    personal: PersonalOption = False,
) -> None:
    """The recipients of one error class, the newest first."""
    from mailgate.cli.tables import found_item, show_items
    from mailgate.journal.search import TROUBLE, find

    choice = wanted(states=[s.value for s in TROUBLE], error_class=error_class)
    database = setting.database()
    found = guarded(lambda: database.read_now(lambda c: find(c, choice, limit, None)))
    items = [found_item(f, personal) for f in found]
    show_items(items, ("id", "recipient", "state", "attempts", "template", "changed_at"), as_json)


@app.command()
def resend(
    message: MessageArgument = None,
    state: StateOption = None,
    producer: ProducerOption = None,
    stream: StreamOption = None,
    template: TemplateOption = None,
    tag: TagOption = None,
    recipient: RecipientOption = None,
    domain: DomainOption = None,
    error_class: ErrorOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every failure there is.")] = False,
    limit: MostOption = None,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Send failures again: by id, or by any filter.

    Uncertain ones may have arrived: they are included only with --state uncertain.
    Interrupted, the same command goes on where it stopped.

        mailgate failures resend --error-class mailbox_full --since 2d --dry-run
    """
    from mailgate.journal.search import TROUBLE, resendable

    states = state or [s.value for s in TROUBLE if message or s is not State.UNCERTAIN]
    choice = wanted(
        states=[s.value for s in resendable(tuple(State(one) for one in _known(states)))],
        numbers=message,
        producer=producer,
        stream=stream,
        template=template,
        tag=tag,
        recipient=recipient,
        domain=domain,
        error_class=error_class,
        since=since,
        until=until,
    )
    _change(choice, every, True, State.QUEUED, "resend", reason, dry_run, yes, limit, as_json)


@app.command()
def discard(
    message: MessageArgument = None,
    template: TemplateOption = None,
    error_class: ErrorOption = None,
    producer: ProducerOption = None,
    limit: MostOption = None,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give up on recipients that are held; they are cancelled and stay on record."""
    choice = wanted(
        states=[State.HELD.value],
        numbers=message,
        template=template,
        error_class=error_class,
        producer=producer,
    )
    _change(choice, False, False, State.CANCELLED, "discard", reason, dry_run, yes, limit, as_json)


def _known(states: list[str]) -> list[str]:
    wanted(states=states)
    return [s.lower() for s in states]


def _change(
    choice: Any,
    every: bool,
    offers_all: bool,
    target: State,
    verb: str,
    reason: str,
    dry_run: bool,
    yes: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    from mailgate.journal.database import JournalAway
    from mailgate.journal.search import count
    from mailgate.journal.surgery import Act
    from mailgate.operations.resend import move_all

    if not (choice.narrow or every):
        fail("say which: message ids or a filter" + (" (or --all)" * offers_all), 2)
    if not choice.states:
        fail("none of these states can be sent again", 2)
    config = setting.config()
    database = setting.database()
    many = guarded(lambda: database.read_now(lambda c: count(c, choice)))
    if limit is not None:
        many = min(many, limit)
    if dry_run:
        if as_json:
            show_json({"would": verb, "count": many})
        else:
            print(f"would {verb} {many} recipients")
        return
    if many > ASK_ABOVE and not yes and not typer.confirm(f"{verb} {many} recipients?", err=True):
        raise typer.Exit(1)
    act = Act(whoami(), verb, reason, json.dumps({"filter": str(choice)}))
    done = 0
    try:
        for moved in move_all(database, choice, target, act, bell(config), limit=limit):
            done += moved
            if many > ASK_ABOVE and not as_json:
                typer.echo(f"{done} of {many}", err=True)
    except KeyboardInterrupt:
        fail(f"stopped after {done}; the same command goes on from there")
    except JournalAway as error:
        fail(f"the journal went away after {done}: {error}; the same command goes on from there")
    if as_json:
        show_json({verb: done})
    else:
        print(f"{verb}: {done} recipients")
