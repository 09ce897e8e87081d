"""One change of many recipients: said first, asked about, done in chunks, told.

Owns what resending, discarding, confirming and expiring have in common: the dry run, the
question, the progress, the end by Ctrl-C. Never chooses what is meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli.filters import bell, left_suppressed, whoami
from mailgate.cli.setting import counted, fail, guarded, setting, show_json
from mailgate.journal.filters import Filter
from mailgate.model.state import State

if TYPE_CHECKING:
    from mailgate.config.shape import Config
    from mailgate.model.address import Address
    from mailgate.operations.resend import Estimate

#: A change of more recipients than this is asked about first.
ASK_ABOVE = 20

MessageArgument = Annotated[list[str] | None, typer.Argument(help="Message ids.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
MostOption = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")]


def say_which(choice: Filter, every: bool, also: str) -> None:
    if not choice.states:
        fail("none of these states can be changed so", 2)
    if not (choice.narrow or every):
        fail(f"say which: message ids or a filter{also}", 2)


class Change:
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
            self._promise(many, limit, as_json)
            return
        question = f"{self._verb} {counted(many)}?"
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
            many = guarded(lambda: self._database.read_now(lambda c: count(c, self._choice)))
            self._promise(many, None, as_json)
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

    def _promise(self, many: int, limit: int | None, as_json: bool) -> None:
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
        stopped = 0
        if self._target is State.QUEUED:
            from mailgate.operations.resend import suppressed

            categories = self._config.categories
            stopped = guarded(lambda: suppressed(self._database, self._choice, categories, limit))
            many -= stopped
        if as_json:
            document: dict[str, Any] = {"would": self._verb, "count": many, "groups": kinds}
            document["suppressed"] = stopped
            document["seconds"] = takes.seconds if takes else None
            document["limit"] = takes.limit if takes else None
            show_json(document)
            return
        print(f"would {self._verb} {counted(many)}")
        if kinds:
            from mailgate.cli.tables import table

            rows = [[str(v) if v is not None else "" for v in kind.values()] for kind in kinds]
            table(list(kinds[0]), rows)
        if stopped:
            print(f"would leave {stopped} alone: they are suppressed")
        if takes and takes.seconds >= 1:
            span = format_duration(float(round(takes.seconds)))
            print(f"would take at least {span} under {takes.limit}")

    def _tell(self, done: int, as_json: bool) -> None:
        if as_json:
            show_json({self._verb: done})
        else:
            print(f"{self._verb}: {counted(done)}")


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
