"""``mailgate clean`` and ``mailgate erase``: what the journal forgets."""

from __future__ import annotations

from typing import Annotated

import typer

from mailgate.cli.filters import JsonOption, ReasonOption, whoami
from mailgate.cli.setting import counted, fail, guarded, setting, show_json


def clean(
    seconds: Annotated[
        float, typer.Option(min=1, help="Stop after so long; the next goes on there.")
    ] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Delete and redact what [retention] keeps no longer.

    Beat has a worker do it every hour; this is for now.
    """
    from mailgate.operations import retention

    config = setting.config()
    database = setting.database()
    done = guarded(lambda: retention.clean(database, config, seconds))
    if as_json:
        show_json(done)
    else:
        print(", ".join(f"{name} {count}" for name, count in done.items()))


def erase(
    address: Annotated[str, typer.Argument(help="Whose data: one whole address.")],
    reason: ReasonOption = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Forget one person: cancel what waits for them, and erase their address and content.

    States, times and counts stay. A suppression of the address stays too, or they would
    get mail again. Exit 1 when something is being sent to them just now: run it again.

    \b
    mailgate erase ann@example.com --reason "asked for it, ticket 4711"
    """
    from mailgate.journal.surgery import Act
    from mailgate.model.address import AddressError, wire_form
    from mailgate.operations import retention

    try:
        wire = wire_form(address)
    except AddressError as error:
        fail(f"{address}: must be one email address ({error})", 2)
    if not yes and not typer.confirm("erase for good what the journal knows of them?", err=True):
        raise typer.Exit(1)
    database = setting.database()
    # The audit says that somebody was erased, and not who.
    act = Act(whoami(), "erase", reason)
    done = guarded(lambda: retention.erase(database, wire, act))
    if as_json:
        show_json(
            {
                "cancelled": done.cancelled,
                "recipients": done.recipients,
                "parked": done.parked,
                "busy": done.busy,
            }
        )
    else:
        print(
            f"cancelled {done.cancelled}, erased {counted(done.recipients)}"
            f" and {done.parked} parked documents"
        )
    if done.busy:
        fail(f"{done.busy} are being sent just now: run it again")
