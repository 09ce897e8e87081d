"""``mailgate failures``: what went wrong, by class, and sending it again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli.filters import (
    CsvOption,
    JsonOption,
    LimitOption,
    PersonalOption,
    ReasonOption,
    bell,
    left_suppressed,
    selects,
    wanted,
    whoami,
)
from mailgate.cli.setting import fail, guarded, setting, show_json
from mailgate.journal.filters import TROUBLE, Filter
from mailgate.model.state import RESENDABLE, State

if TYPE_CHECKING:
    from mailgate.config.shape import Config
    from mailgate.config.terms import Rate
    from mailgate.model.address import Address
    from mailgate.operations.resend import Estimate

app = typer.Typer(help="Failures: by class, and sending them again.", no_args_is_help=True)

#: A change of more recipients than this is asked about first.
ASK_ABOVE = 20

MessageArgument = Annotated[list[str] | None, typer.Argument(help="Message ids.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
MostOption = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")]


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
    error_class: Annotated[str, typer.Argument(help="As failures list shows it.")],
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
    by: Annotated[str | None, typer.Option("--relay", help="The relay to try first.")] = None,
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
    change = _Change(config, choice, State.QUEUED, "resend", reason, how)
    if to is not None:
        change.corrected(_address(to), dry_run, as_json)
        return
    _say_which(choice, every, " (or --all)")
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
    _say_which(choice, False, "")
    change = _Change(setting.config(), choice, State.CANCELLED, "discard", reason)
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
    _say_which(choice, False, "")
    change = _Change(setting.config(), choice, State.SENT, "confirm", reason)
    change.run(dry_run, yes, limit, as_json)


def _say_which(choice: Filter, every: bool, also: str) -> None:
    if not choice.states:
        fail("none of these states can be sent again", 2)
    if not (choice.narrow or every):
        fail(f"say which: message ids or a filter{also}", 2)


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


class _Change:
    """One change of many recipients: said first, asked about, done in chunks, told."""

    def __init__(
        self,
        config: Config,
        choice: Filter,
        target: State,
        verb: str,
        reason: str,
        how: Any = None,
    ) -> None:
        from mailgate.journal.surgery import Act
        from mailgate.operations.resend import How

        self._config, self._choice, self._target, self._verb = config, choice, target, verb
        self._how = how or How()
        self._database = setting.database()
        detail = json.dumps({"filter": choice.spelled()}, default=str)
        self._act = Act(whoami(), verb, reason, detail)

    def run(self, dry_run: bool, yes: bool, limit: int | None, as_json: bool) -> None:
        from mailgate.journal.database import JournalAway
        from mailgate.journal.search import count
        from mailgate.operations.resend import move_all

        many = guarded(lambda: self._database.read_now(lambda c: count(c, self._choice)))
        if limit is not None:
            many = min(many, limit)
        if dry_run:
            self._promise(many, as_json)
            return
        question = f"{self._verb} {many} recipients?"
        if many > ASK_ABOVE and not yes and not typer.confirm(question, err=True):
            raise typer.Exit(1)
        done = suppressed = 0
        moving = move_all(
            self._database,
            self._choice,
            self._target,
            self._act,
            bell(self._config),
            limit=limit,
            how=self._how,
            categories=self._config.categories,
        )
        try:
            with _progress(self._verb, many, shown=many > ASK_ABOVE and not as_json) as advance:
                for moved in moving:
                    done += len(moved.recipient_ids)
                    suppressed += moved.suppressed
                    advance(len(moved.recipient_ids), done)
        except KeyboardInterrupt:
            fail(f"stopped after {done}; the same command goes on from there")
        except JournalAway as error:
            fail(f"the journal went away after {done}: {error}; the same command goes on there")
        left_suppressed(suppressed)
        self._tell(done, as_json)

    def corrected(self, address: Address, dry_run: bool, as_json: bool) -> None:
        """Send one recipient again under another address."""
        from mailgate.journal.search import count
        from mailgate.operations.resend import NotOne, correct

        if dry_run:
            self._promise(
                guarded(lambda: self._database.read_now(lambda c: count(c, self._choice))), as_json
            )
            return
        ring = bell(self._config)
        act = replace(self._act, detail=json.dumps({"filter": "one, with another address"}))
        try:
            moved = guarded(
                lambda: correct(
                    self._database,
                    self._choice,
                    address,
                    act,
                    ring,
                    self._how,
                    self._config.categories,
                )
            )
        except NotOne as error:
            fail(f"--to is for exactly one failed recipient: {error.found or 'none'} found", 2)
        left_suppressed(moved.suppressed)
        self._tell(len(moved.recipient_ids), as_json)

    def _promise(self, many: int, as_json: bool) -> None:
        """What would be done: how many, of which kinds, and how long it would take."""
        from mailgate.config.terms import format_duration
        from mailgate.journal.search import failure_groups, routes
        from mailgate.operations.resend import estimate

        groups = guarded(lambda: self._database.read_now(lambda c: failure_groups(c, self._choice)))
        kinds = [{k: g[k] for k in ("state", "error_class", "template", "count")} for g in groups]
        takes: Estimate | None = None
        if self._target is State.QUEUED:
            ways = guarded(lambda: self._database.read_now(lambda c: routes(c, self._choice)))
            takes = estimate(ways, self._config, self._how)
        if as_json:
            document: dict[str, Any] = {"would": self._verb, "count": many, "groups": kinds}
            document["seconds"] = takes.seconds if takes else None
            document["limit"] = takes.limit if takes else None
            show_json(document)
            return
        print(f"would {self._verb} {many} recipients")
        if kinds:
            from mailgate.cli.tables import table

            rows = [[str(v) if v is not None else "" for v in kind.values()] for kind in kinds]
            table(list(kinds[0]), rows)
        if takes and takes.seconds >= 1:
            span = format_duration(float(round(takes.seconds)))
            print(f"would take at least {span} under {takes.limit}")

    def _tell(self, done: int, as_json: bool) -> None:
        if as_json:
            show_json({self._verb: done})
        else:
            print(f"{self._verb}: {done} recipients")


@contextmanager
def _progress(verb: str, many: int, *, shown: bool) -> Iterator[Any]:
    """A bar on a terminal, a line a chunk elsewhere; on standard error."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not shown:
        yield lambda moved, done: None
    elif not console.is_terminal:
        yield lambda moved, done: typer.echo(f"{done} of {many}", err=True)
    else:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (verb, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(verb, total=many)
            yield lambda moved, done: bar.update(task, completed=done)
