"""``mailgate digests``: what gathers, and sending it now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mailgate.cli.filters import JsonOption, LimitOption, PersonalOption, ReasonOption, whoami
from mailgate.cli.setting import fail, guarded, setting, show_json

if TYPE_CHECKING:
    from mailgate.journal.digest_list import Wanted

app = typer.Typer(help="Digests: items that go as one mail.", no_args_is_help=True)


@app.command("list")
def list_digests(
    digest: Annotated[
        str | None, typer.Argument(help="NAME, NAME/KEY or an id; all of them by default.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    personal: PersonalOption = False,
) -> None:
    """List the digests that gather, the next to go first."""
    from mailgate.cli.tables import masked, show_items, stamp
    from mailgate.journal.digest_list import gathering
    from mailgate.model.ids import spell

    database = setting.database()
    wanted = _wanted(digest)
    rows = guarded(lambda: database.read_now(lambda c: gathering(c, wanted, limit)))
    items = [
        {
            "id": spell(row["id"]),
            "name": row["name"],
            "key": row["key"],
            "recipient": masked(row["email"], personal) if row["email"] else None,
            "items": row["items"],
            "producer": row["producer"],
            "throttled": bool(row["throttled"]),
            "opened_at": stamp(row["opened_at"]),
            "due_at": stamp(row["due_at"]),
        }
        for row in rows
    ]
    columns = ("id", "name", "key", "recipient", "items", "producer", "opened_at", "due_at")
    show_items(items, columns, as_json)


@app.command()
def release(
    digest: Annotated[str, typer.Argument(help="NAME, NAME/KEY or an id, as listed.")],
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Have digests go now; a worker writes their mails within a second or two.

    What a throttle gathered goes when the throttle has room, and not before.
    """
    from mailgate.journal.digest_list import hurry
    from mailgate.journal.surgery import Act

    wanted = _wanted(digest)
    act = Act(whoami(), "release_digest", reason, digest)
    database = setting.database()
    count = guarded(lambda: database.run_now(lambda c: hurry(c, wanted, act, database.now())))
    if as_json:
        show_json({"released": count})
    elif count:
        print(f"released: {count} digests")
    if not count:
        fail(f"no digest {digest} gathers")


def _wanted(text: str | None) -> Wanted:
    """What ``NAME``, ``NAME/KEY`` or an id means; a name wins over an id."""
    from mailgate.journal.digest_list import Wanted
    from mailgate.model.ids import unspell

    if text is None:
        return Wanted()
    name, slash, key = text.partition("/")
    if slash:
        return Wanted(name=name, key=key)
    if len(name) == 13 and name not in setting.config().digests:
        try:
            return Wanted(id=unspell(name))
        except ValueError:
            pass
    return Wanted(name=name)
