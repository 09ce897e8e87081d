"""``mailgate suppressions``: who gets no mail, and why; by hand and as CSV."""

from __future__ import annotations

from typing import Annotated

import typer

from mailgate.cli.filters import (
    JsonOption,
    LimitOption,
    PersonalOption,
    ReasonOption,
    whoami,
)
from mailgate.cli.setting import complain, fail, guarded, setting, show_json
from mailgate.cli.suppressed import (
    AddressesArgument,
    BecauseOption,
    DomainOption,
    DryRunOption,
    ForCategory,
    ForProducer,
    LastsOption,
    SinceOption,
    SourceOption,
    UntilOption,
    item,
    known_category,
    name_of,
    subject,
    told,
    until,
    wanted,
)
from mailgate.cli.suppression_files import bring_in, export

app = typer.Typer(help="Who gets no mail, and why.", no_args_is_help=True)

#: A removal of more entries than this is asked about first.
ASK_ABOVE = 20


@app.command("list")
def list_suppressions(
    address: Annotated[str | None, typer.Option(help="One address or domain.")] = None,
    domain: DomainOption = None,
    producer: ForProducer = None,
    category: ForCategory = None,
    because: BecauseOption = None,
    source: SourceOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    expired: Annotated[bool, typer.Option("--expired", help="Those that ended.")] = False,
    limit: LimitOption = 50,
    after: Annotated[int, typer.Option(help="The last id of the page before.")] = 0,
    as_json: JsonOption = False,
    personal: PersonalOption = False,
) -> None:
    """List entries, the oldest first."""
    from mailgate.cli.tables import show_items
    from mailgate.journal.suppression_list import find

    choice = wanted(address, domain, producer, category, because, source, since, until, expired)
    database = setting.database()
    now = database.now()
    found = guarded(lambda: database.read_now(lambda c: find(c, choice, now, limit, after)))
    items = [item(listed, personal) for listed in found]
    columns = ("id", "address", "producer", "category", "reason", "source", "expires_at")
    show_items(items, columns, as_json)


@app.command()
def add(
    address: AddressesArgument,
    producer: ForProducer = None,
    category: ForCategory = None,
    lasts: LastsOption = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; shown with the entry and kept in the audit.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Send no more mail to an address or a domain; waiting mail is stopped too."""
    from mailgate.journal.suppressions import Suppression
    from mailgate.journal.surgery import Act
    from mailgate.operations.suppressions import add as write

    if len(reason) > 200:
        fail("--reason: must be at most 200 characters", 2)
    people = [subject(text) for text in address]
    group = name_of(category, "--category") or ""
    known_category(group)
    source = "unsubscribe" if group else "manual"
    database = setting.database()
    entries = [
        Suppression(
            one,
            reason or ("unsubscribed" if group else "manual"),
            source,
            name_of(producer, "--producer") or "",
            group,
            expires_at=until(lasts, database.now()),
        )
        for one in people
    ]
    act = Act(whoami(), "suppress", reason, f"producer={producer or ''} category={group}")
    done = guarded(lambda: write(database, entries, act))
    if as_json:
        show_json({"suppressed": done})
    else:
        print(f"suppressed: {done}")


@app.command()
def remove(
    address: Annotated[list[str] | None, typer.Argument(help="Addresses or domains.")] = None,
    domain: DomainOption = None,
    producer: ForProducer = None,
    category: ForCategory = None,
    because: BecauseOption = None,
    source: SourceOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    every: Annotated[
        bool,
        typer.Option("--every", help="Of an address all entries, unsubscriptions too."),
    ] = False,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let mail go again: to an address, or to all that a filter finds.

    With an address it is the entry for all mail, unless --producer, --category or
    --every say otherwise. What bounced while a relay was wrong is removed by a filter:

        mailgate suppressions remove --source bounce --since 2h --dry-run
    """
    from mailgate.journal.database import Connection, JournalAway
    from mailgate.journal.suppression_list import count
    from mailgate.journal.surgery import Act
    from mailgate.operations.suppressions import remove_all

    scope = (producer, category)
    if address and not every:
        scope = (producer or "", category or "")
    people: list[str | None] = [*address] if address else [None]
    choices = [wanted(one, domain, *scope, because, source, since, until) for one in people]
    if not all(choice.narrow for choice in choices):
        fail("say which: addresses or a filter", 2)
    database = setting.database()
    now = database.now()

    def look(connection: Connection) -> int:
        return sum(count(connection, choice, now) for choice in choices)

    many = guarded(lambda: database.read_now(look))
    if dry_run:
        if as_json:
            show_json({"would": "remove", "count": many})
        else:
            print(f"would remove {many} entries")
        return
    if many > ASK_ABOVE and not yes and not typer.confirm(f"remove {many} entries?", err=True):
        raise typer.Exit(1)
    done = 0
    try:
        for one, choice in zip(people, choices, strict=True):
            act = Act(whoami(), "unsuppress", reason, told(choice))
            gone = sum(remove_all(database, choice, act))
            if not gone and one:
                complain(f"{one} has no such entry: mailgate suppressions list --address {one}")
            done += gone
    except JournalAway as error:
        fail(f"the journal went away: {error}; the same command goes on from there")
    if as_json:
        show_json({"removed": done})
    else:
        print(f"removed: {done}")
    if not done:
        raise typer.Exit(1)


app.command("import")(bring_in)
app.command()(export)
