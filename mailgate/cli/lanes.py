"""``mailgate lanes``: what waits in each lane, and emptying one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli.filters import JsonOption, LimitOption, ReasonOption, bell, whoami
from mailgate.cli.processes import LaneName
from mailgate.cli.setting import complain, fail, guarded, setting, show_json

if TYPE_CHECKING:
    from mailgate.journal.database import Database
    from mailgate.journal.pauses import What

app = typer.Typer(help="The lanes: what waits there, and draining one.", no_args_is_help=True)

LaneArgument = Annotated[LaneName, typer.Argument(help="A lane.")]
WaitOption = Annotated[
    str | None,
    typer.Option(
        "--wait", help="Wait so long, such as 60s, until nothing of it is under way any more."
    ),
]


@app.command("list")
def list_lanes(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List the lanes: waiting, due, since when, under way, and who has paused one."""
    from mailgate.cli.tables import show_items
    from mailgate.journal.standing import lanes

    database = setting.database()
    rows = guarded(lambda: database.read_now(lambda c: lanes(c, database.now())))[:limit]
    columns = ("lane", "waiting", "due", "oldest_due_s", "under_way", "paused")
    show_items(rows, columns, as_json)


@app.command()
def drain(
    lane: LaneArgument,
    reason: ReasonOption,
    to: Annotated[
        LaneName | None, typer.Option("--to", help="Move what waits there to this lane.")
    ] = None,
    wait: Annotated[
        str, typer.Option("--wait", help="How long to wait for what is under way.")
    ] = "10m",
    as_json: JsonOption = False,
) -> None:
    """Empty a lane: nothing more is taken from it, and what is under way comes to its end.

    The lane stays paused until mailgate resume lane; what is accepted for it meanwhile waits.
    Interrupted, the same command goes on. Exit 1 when something is still under way.
    """
    from mailgate.journal.pauses import What
    from mailgate.journal.surgery import Act
    from mailgate.model.state import Lane
    from mailgate.operations import draining

    if to is lane:
        fail("--to: must be another lane", 2)
    config = setting.config()
    patience = seconds(wait)
    database = setting.database()
    which = Lane(lane.value)
    label = f"lane {lane.value}" + (f" to {to.value}" if to else "")
    act = Act(whoami(), "drain", reason, label)
    guarded(lambda: draining.begin(database, which, act))
    complain(f"lane {lane.value} is paused; mailgate resume lane {lane.value} opens it again")
    moved = 0

    def hand_over() -> None:
        nonlocal moved
        if to is not None:
            for many in draining.hand_over(database, which, Lane(to.value), act):
                moved += many
                bell(config)(Lane(to.value))

    guarded(hand_over)
    left = under_way(database, What.LANE, lane.value, patience)
    # What failed for now meanwhile has come back to the lane.
    guarded(hand_over)
    waits = guarded(lambda: database.read_now(lambda c: _waiting(c, which)))
    if as_json:
        show_json({"lane": lane.value, "under_way": left, "moved": moved, "waiting": waits})
    else:
        went = f", {moved} moved to {to.value}" if to else ""
        state = "is drained" if not left else f"still has {left} under way"
        print(f"lane {lane.value} {state}{went}; {waits} wait in it")
    raise typer.Exit(1 if left else 0)


def _waiting(connection: Any, lane: Any) -> int:
    from mailgate.journal.draining import waiting

    return waiting(connection, lane)


def seconds(text: str) -> float:
    """How long ``--wait`` says; a wrong one ends the program."""
    from mailgate.config.terms import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as error:
        fail(f"--wait: {error}", 2)


def under_way(database: Database, what: What, name: str, patience: float) -> int:
    """Wait until nothing is under way, saying how it goes; what is left when patience ends."""
    from mailgate.operations.draining import ended

    left = before = 0
    with suppress(KeyboardInterrupt):
        for left in guarded_each(ended(database, what, name, patience=patience)):
            if left and left != before:
                complain(f"{left} under way")
            before = left
    return max(0, left)


def guarded_each(steps: Any) -> Any:
    """The steps of something long; a journal that goes away ends the program."""
    while True:
        step = guarded(lambda: next(steps, None))
        if step is None:
            return
        yield step
