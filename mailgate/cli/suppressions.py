"""``mailgate suppressions``: who gets no mail, and why; by hand and as CSV."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli.filters import (
    JsonOption,
    LimitOption,
    PersonalOption,
    ReasonOption,
    moment,
    whoami,
)
from mailgate.cli.setting import clean, complain, fail, guarded, read_file, setting, show_json

if TYPE_CHECKING:
    from mailgate.journal.suppression_list import Entries, Listed
    from mailgate.journal.suppressions import Suppression

app = typer.Typer(help="Who gets no mail, and why.", no_args_is_help=True)

#: A removal of more entries than this is asked about first.
ASK_ABOVE = 20
#: Bad lines of an import that are shown one by one.
_SHOWN = 50

AddressesArgument = Annotated[
    list[str], typer.Argument(help="Addresses, or domains: example.com or @example.com.")
]
ForProducer = Annotated[
    str | None, typer.Option("--producer", help="For this producer's mail alone.")
]
ForCategory = Annotated[
    str | None, typer.Option("--category", help="For streams of this category alone.")
]
DomainOption = Annotated[
    str | None, typer.Option("--domain", help="A domain and the addresses in it.")
]
BecauseOption = Annotated[str | None, typer.Option("--because", help="The entry's reason.")]
SourceOption = Annotated[
    str | None, typer.Option("--source", help="bounce, manual, import or unsubscribe.")
]
SinceOption = Annotated[str | None, typer.Option("--since", help="Added since: 2h, 3d, or a time.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="Added before; likewise.")]
LastsOption = Annotated[
    str | None, typer.Option("--for", help="How long: 30d, 12w; without it until removed.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


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

    choice = _wanted(address, domain, producer, category, because, source, since, until, expired)
    database = setting.database()
    now = database.now()
    found = guarded(lambda: database.read_now(lambda c: find(c, choice, now, limit, after)))
    items = [_item(listed, personal) for listed in found]
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
    people = [_subject(text) for text in address]
    group = _name(category, "--category") or ""
    _known_category(group)
    source = "unsubscribe" if group else "manual"
    database = setting.database()
    entries = [
        Suppression(
            one,
            reason or ("unsubscribed" if group else "manual"),
            source,
            _name(producer, "--producer") or "",
            group,
            expires_at=_until(lasts, database.now()),
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
    choices = [_wanted(one, domain, *scope, because, source, since, until) for one in people]
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
            act = Act(whoami(), "unsuppress", reason, _told(choice))
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


@app.command("import")
def bring_in(
    file: Annotated[Path, typer.Argument(help="CSV; - for standard input.")],
    producer: ForProducer = None,
    category: ForCategory = None,
    lasts: LastsOption = None,
    reason: Annotated[
        str, typer.Option("--reason", help="For lines that give none; kept in the audit.")
    ] = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read entries from CSV; lines that are wrong are told, the others are written.

    The first line names the columns: address (or email), and any of producer,
    category, reason, source, evidence, expires_at. Without it the first column is
    the address. Entries that last longer already stay.
    """
    from mailgate.journal.database import JournalAway
    from mailgate.journal.suppressions import Suppression
    from mailgate.journal.surgery import Act
    from mailgate.operations.suppressions import BadLine, read_csv
    from mailgate.operations.suppressions import bring_in as write

    raw = sys.stdin.buffer.read() if str(file) == "-" else read_file(file)
    group = _name(category, "--category") or ""
    _known_category(group)
    database = setting.database()
    now = database.now()
    defaults = Suppression(
        "",
        reason or ("unsubscribed" if group else "imported"),
        "unsubscribe" if group else "import",
        _name(producer, "--producer") or "",
        group,
        expires_at=_until(lasts, now),
    )
    # A wrong byte is its line's fault alone.
    text = raw.decode("utf-8-sig", "surrogateescape")
    entries: list[Suppression] = []
    bad: list[BadLine] = []
    for read in read_csv(io.StringIO(text, newline=""), now, defaults):
        if isinstance(read, BadLine):
            bad.append(read)
        else:
            entries.append(read)
    for fault in bad[:_SHOWN]:
        complain(str(fault))
    if len(bad) > _SHOWN:
        complain(f"and {len(bad) - _SHOWN} more lines that are wrong")
    written = 0
    if not dry_run:
        act = Act(whoami(), "import suppressions", reason, file.name)
        try:
            written = sum(write(database, entries, act))
        except JournalAway as error:
            fail(f"the journal went away: {error}; the same command can be given again")
    if as_json:
        faults = [{"line": b.line, "field": b.field, "rule": b.rule} for b in bad]
        document: dict[str, Any] = {"read": len(entries), "written": written, "faults": faults}
        show_json({"dry_run": dry_run, **document})
    elif dry_run:
        print(f"would import {len(entries)} entries; {len(bad)} lines are wrong")
    else:
        unchanged = len(entries) - written
        print(f"imported: {written} ({unchanged} were there, {len(bad)} lines are wrong)")
    if bad:
        raise typer.Exit(1)


@app.command()
def export(
    domain: DomainOption = None,
    producer: ForProducer = None,
    category: ForCategory = None,
    because: BecauseOption = None,
    source: SourceOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    reason: ReasonOption = "",
) -> None:
    """Write entries as CSV to standard output, with whole addresses; import reads it back."""
    from mailgate.journal.surgery import Act, audit
    from mailgate.operations.suppressions import COLUMNS, pages, row_of

    choice = _wanted(None, domain, producer, category, because, source, since, until)
    database = setting.database()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)

    def write() -> int:
        many = 0
        for listed in pages(database, choice):
            writer.writerow(row_of(listed))
            many += 1
        return many

    many = guarded(write)
    act = Act(whoami(), "export suppressions", reason, _told(choice))
    guarded(lambda: database.run_now(lambda c: audit(c, act, many, database.now())))


def _wanted(
    address: str | None,
    domain: str | None,
    producer: str | None,
    category: str | None,
    because: str | None,
    source: str | None,
    since: str | None,
    until: str | None,
    expired: bool = False,
) -> Entries:
    from mailgate.journal.suppression_list import Entries
    from mailgate.operations.suppressions import SOURCES

    if source is not None and source not in SOURCES:
        fail(f"--source {source}: must be one of {', '.join(SOURCES)}", 2)
    if domain is not None:
        domain = _subject(f"@{domain.removeprefix('*').removeprefix('@')}")
    _utf8(because or "")
    return Entries(
        address=None if address is None else _subject(address),
        domain=domain,
        producer=_name(producer, "--producer"),
        category=_name(category, "--category"),
        reason=because,
        source=source,
        since=moment(since, "--since"),
        until=moment(until, "--until"),
        expired=expired,
    )


def _subject(text: str) -> str:
    from mailgate.operations.suppressions import NotSuppressible, subject

    _utf8(text)
    try:
        return subject(text)
    except NotSuppressible as error:
        fail(f"{text}: {error}", 2)


def _name(text: str | None, option: str) -> str | None:
    from mailgate.operations.suppressions import NotSuppressible, name

    if text is None:
        return None
    try:
        return name(text)
    except NotSuppressible as error:
        fail(f"{option} {text}: {error}", 2)


def _known_category(group: str) -> None:
    """A category that no stream has stops nothing: that is likely a slip."""
    known = sorted(set(setting.config().categories.values()))
    if group and group not in known:
        complain(f"no stream has the category {group}; there are: {', '.join(known) or 'none'}")


def _until(lasts: str | None, now: int) -> int | None:
    from mailgate.config.terms import parse_duration

    if lasts is None:
        return None
    try:
        return now + int(parse_duration(lasts) * 1000)
    except ValueError as error:
        fail(f"--for: {error}", 2)


def _utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        fail(f"{clean(text)} is not UTF-8", 2)


def _told(choice: Entries) -> str:
    """The filter for the audit, without what it leaves open."""
    from dataclasses import asdict

    return ", ".join(f"{k}={v}" for k, v in asdict(choice).items() if v not in (None, False))


def _item(listed: Listed, personal: bool) -> dict[str, Any]:
    from mailgate.cli.tables import masked, stamp
    from mailgate.log import mask_text

    entry = listed.entry
    address = masked(entry.address, personal) if "@" in entry.address else entry.address
    return {
        "id": listed.id,
        "address": address,
        "producer": entry.producer or None,
        "category": entry.category or None,
        "reason": entry.reason,
        "source": entry.source,
        "evidence": entry.evidence if personal else mask_text(entry.evidence),
        "created_at": stamp(listed.created_at),
        "expires_at": stamp(entry.expires_at),
    }
