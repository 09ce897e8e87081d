"""``mailgate pause`` and ``resume``: everything, a lane, a stream, a producer, a relay…

``mailgate pauses list`` shows what is paused.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from mailgate.cli import completing
from mailgate.cli.filters import JsonOption, LimitOption, ReasonOption, whoami
from mailgate.cli.lanes import WaitOption, seconds, under_way
from mailgate.cli.setting import complain, fail, guarded, setting, show_json

app = typer.Typer(help="What is paused.", no_args_is_help=True)


class Kind(StrEnum):
    """As ``journal.pauses.What``, which would load the journal for every command."""

    all = "all"
    lane = "lane"
    producer = "producer"
    stream = "stream"
    relay = "relay"
    domain = "domain"
    template = "template"
    schedule = "schedule"


KindArgument = Annotated[Kind, typer.Argument(help="What is meant.")]
NameArgument = Annotated[
    str, typer.Argument(help="Its name; none for all.", autocompletion=completing.of_kind)
]


def pause(
    kind: KindArgument,
    reason: ReasonOption,
    name: NameArgument = "",
    wait: WaitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send nothing of a kind until it is resumed; mail goes on being accepted, and waits.

    With --wait it also tells when the last conversation that was under way has ended: exit 1
    when some have not by then.
    """
    change(kind.value, name, reason, as_json, begin=True, wait=wait)


def resume(
    kind: KindArgument,
    name: NameArgument = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Let mail go again that was paused."""
    change(kind.value, name, reason, as_json, begin=False)


def change(
    kind: str, name: str, reason: str, as_json: bool, *, begin: bool, wait: str | None = None
) -> None:
    """Pause or resume, and say what came of it; exit 1 when there was nothing to do."""
    from mailgate.journal.pauses import What
    from mailgate.journal.surgery import Act
    from mailgate.operations import standing

    config = setting.config()
    verb = "pause" if begin else "resume"
    act = Act(whoami(), verb, reason, f"{kind} {name}".strip())
    what = What(kind)
    label = f"{kind} {name}".strip()
    probed = 0
    patience = seconds(wait) if wait is not None else None
    try:
        # Wrong words are said before the journal is asked for.
        name = standing.checked(config, what, name) if begin or what is What.DOMAIN else name
        database = setting.database()
        if begin:
            done = guarded(lambda: standing.pause(database, config, what, name, act))
        else:
            done, probed = guarded(lambda: standing.resume(database, config, what, name, act))
    except standing.NotPausable as error:
        fail(str(error), 2)
    if patience is not None:
        left = under_way(database, what, name, patience)
        if as_json:
            show_json({"kind": kind, "name": name, "changed": done, "under_way": left})
        else:
            print(f"{label} is paused, and {left or 'nothing'} of it under way")
        raise typer.Exit(1 if left else 0)
    if as_json:
        show_json({"kind": kind, "name": name, "changed": done, "probed": probed})
    elif begin:
        print(f"{label} is paused" if done else f"{label} was paused already")
    elif done or probed:
        print(f"{label} goes on" + (f"; {probed} breakers are probed now" if probed else ""))
    if not done and not probed:
        if not begin:
            complain(f"{label} is not paused")
        raise typer.Exit(1)


@app.command("list")
def list_pauses(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List what is paused, oldest first: since when, by whom and why."""
    from mailgate.cli.tables import show_items, stamp
    from mailgate.journal import pauses

    database = setting.database()
    found = guarded(lambda: database.read_now(pauses.standing))[:limit]
    items = [
        {
            "kind": one.what.value,
            "name": one.name,
            "since": stamp(one.since),
            "who": one.who,
            "reason": one.reason,
        }
        for one in found
    ]
    show_items(items, ("kind", "name", "since", "who", "reason"), as_json)
