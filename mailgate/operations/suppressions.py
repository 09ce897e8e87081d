"""Suppressions by hand: adding, removing, and lists in and out as CSV.

Owns what an entry may say, how CSV is read and written, and the audit of it all. A
removal of many needs a filter that says something.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from mailgate.journal.database import Connection, Database
from mailgate.journal.suppression_list import Entries, Listed, find, remove
from mailgate.journal.suppressions import Suppression, put
from mailgate.journal.surgery import Act, audit
from mailgate.model.address import AddressError, wire_form

#: Entries in one transaction.
CHUNK = 1000
#: A reason is at most so long.
REASON = 200
COLUMNS = (
    "address",
    "producer",
    "category",
    "reason",
    "source",
    "evidence",
    "created_at",
    "expires_at",
)
SOURCES = ("bounce", "manual", "import", "unsubscribe")
_ADDRESS_NAMES = ("address", "email", "recipient", "domain")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
#: A spreadsheet would compute a cell that begins so; one quote before it says that it is text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


class NotSuppressible(ValueError):
    """The text names no address and no domain, or a field breaks a rule; says which."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of a CSV that became no entry, by its number (1 is the first) and why."""

    line: int
    field: str
    rule: str

    def __str__(self) -> str:
        return (
            f"line {self.line}: {self.field}: {self.rule}"
            if self.field
            else (f"line {self.line}: {self.rule}")
        )


def subject(text: str) -> str:
    """An address (folded) or a domain as an entry knows it.

    A domain is written ``example.com``, ``@example.com`` or ``*@example.com``. Raises
    ``NotSuppressible``.
    """
    text = text.strip()
    local, _, domain = text.rpartition("@")
    try:
        if local in ("", "*"):
            return wire_form(f"any@{domain}").rpartition("@")[2]
        return wire_form(text).casefold()
    except (AddressError, ValueError) as error:
        raise NotSuppressible(f"must be one address or a domain ({error})") from None


def name(text: str) -> str:
    """A producer or category; '' for all. Raises ``NotSuppressible``."""
    if text and not _NAME.match(text):
        raise NotSuppressible("must be a name of a-z, 0-9, '-' and '_' (at most 63)")
    return text


# --- changes -------------------------------------------------------------------------


def add(database: Database, entries: Sequence[Suppression], act: Act) -> int:
    """Write entries; each replaces one of the same scope. Raises ``JournalAway``."""
    return _write(database, entries, act, replace=True)


def bring_in(database: Database, entries: Iterable[Suppression], act: Act) -> Iterator[int]:
    """Write many entries, chunk by chunk; yields how many were new or last longer now.

    One that is there already and lasts longer stays as it is, so that the same list
    can be imported again. Raises ``JournalAway``; what is done is done.
    """
    chunk: list[Suppression] = []
    for entry in entries:
        chunk.append(entry)
        if len(chunk) == CHUNK:
            yield _write(database, chunk, act, replace=False)
            chunk = []
    if chunk:
        yield _write(database, chunk, act, replace=False)


def _write(database: Database, entries: Sequence[Suppression], act: Act, *, replace: bool) -> int:
    def work(connection: Connection) -> int:
        now = database.now()
        done = sum(put(connection, entry, now, replace=replace) for entry in entries)
        if done:
            audit(connection, act, done, now)
        return done

    return database.run_now(work)


def remove_all(database: Database, wanted: Entries, act: Act) -> Iterator[int]:
    """Remove every entry that ``wanted`` finds, chunk by chunk; yields how many each time.

    Interrupted, the same call goes on. Raises ``JournalAway``.
    """
    while True:

        def work(connection: Connection) -> int:
            now = database.now()
            found = find(connection, wanted, now, CHUNK)
            gone = remove(connection, [listed.id for listed in found])
            if gone:
                audit(connection, act, gone, now)
            return gone

        done = database.run_now(work)
        if not done:
            return
        yield done


# --- CSV -----------------------------------------------------------------------------


def pages(database: Database, wanted: Entries) -> Iterator[Listed]:
    """Every entry that is meant, the oldest first, page by page. Raises ``JournalAway``."""
    last = 0
    while True:
        work = partial(find, wanted=wanted, now=database.now(), limit=CHUNK, after=last)
        found = database.read_now(work)
        if not found:
            return
        yield from found
        last = found[-1].id


def row_of(listed: Listed) -> list[str]:
    """An entry as a row under ``COLUMNS``; no cell is a formula to a spreadsheet."""
    e = listed.entry
    expires = "" if e.expires_at is None else _spelled(e.expires_at)
    cells = (
        e.address,
        e.producer,
        e.category,
        e.reason,
        e.source,
        e.evidence,
        _spelled(listed.created_at),
        expires,
    )
    return [f"'{cell}" if _FORMULA.match(cell) else cell for cell in cells]


def _spelled(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def read_csv(
    lines: Iterable[str], now: int, defaults: Suppression
) -> Iterator[Suppression | BadLine]:
    """Entries from CSV, and what is wrong with the lines that are none.

    The first line may name the columns (``COLUMNS``, in any order, ``email`` also for
    ``address``; others are ignored); without that the first column is the address.
    ``defaults`` says what a line leaves out; ``now`` is milliseconds. The quote that
    ``row_of`` puts before what could be a formula is taken off.
    """
    reader = csv.reader(lines)
    columns: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadLine(reader.line_num, "", f"is no CSV: {error}")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            heads = [cell.strip().lower() for cell in cells]
            if any(head in _ADDRESS_NAMES for head in heads):
                columns = ["address" if head in _ADDRESS_NAMES else head for head in heads]
                continue
            columns = ["address"]
        said = dict(zip(columns, map(_plain, cells), strict=False))
        yield _entry(said, reader.line_num, now, defaults)


def _plain(cell: str) -> str:
    cell = cell.strip(" ")
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _entry(
    said: dict[str, str], line: int, now: int, defaults: Suppression
) -> Suppression | BadLine:
    field = "address"
    try:
        "".join(said.values()).encode()
        address = subject(said.get("address", ""))
        field = "producer"
        producer = name(said.get("producer") or defaults.producer)
        field = "category"
        category = name(said.get("category") or defaults.category)
        field = "reason"
        reason = said.get("reason") or defaults.reason
        if len(reason) > REASON:
            raise NotSuppressible(f"must be at most {REASON} characters")
        field = "expires_at"
        expires_at = _moment(said.get("expires_at", ""), now) or defaults.expires_at
    except UnicodeEncodeError:
        return BadLine(line, "", "is not UTF-8")
    except NotSuppressible as error:
        return BadLine(line, field, str(error))
    source = said.get("source", "")
    return Suppression(
        address,
        reason.replace("\x00", "\\0"),
        source if source in SOURCES else defaults.source,
        producer,
        category,
        said.get("evidence") or defaults.evidence,
        expires_at,
    )


def _moment(text: str, now: int) -> int | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        ms = round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise NotSuppressible("must be a time such as 2027-05-01T10:00Z") from None
    if ms <= now:
        raise NotSuppressible("has passed already")
    return ms
