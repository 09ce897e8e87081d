"""``mailgate suppressions import`` and ``export``: the list as CSV."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli.filters import JsonOption, ReasonOption, whoami
from mailgate.cli.setting import complain, fail, guarded, read_file, setting, show_json
from mailgate.cli.suppressed import (
    BecauseOption,
    DomainOption,
    DryRunOption,
    ForCategory,
    ForProducer,
    LastsOption,
    SinceOption,
    SourceOption,
    UntilOption,
    known_category,
    name_of,
    told,
    until,
    wanted,
)

if TYPE_CHECKING:
    from mailgate.journal.suppressions import Suppression

#: Bad lines of an import that are shown one by one.
_SHOWN = 50


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
    group = name_of(category, "--category") or ""
    known_category(group)
    database = setting.database()
    now = database.now()
    defaults = Suppression(
        "",
        reason or ("unsubscribed" if group else "imported"),
        "unsubscribe" if group else "import",
        name_of(producer, "--producer") or "",
        group,
        expires_at=until(lasts, now),
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

    choice = wanted(None, domain, producer, category, because, source, since, until)
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
    act = Act(whoami(), "export suppressions", reason, told(choice))
    guarded(lambda: database.run_now(lambda c: audit(c, act, many, database.now())))
