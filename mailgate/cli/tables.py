"""How rows are shown: tables for people, one JSON document for programs.

Owns masking: an address is shown in full only where ``--show-personal-data`` asks.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mailgate.cli.setting import clean, fail, show_json
from mailgate.journal.search import Found
from mailgate.model.ids import spell


def when(ms: int | None) -> str:
    """A time for people: UTC, to the second."""
    if ms is None:
        return ""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def stamp(ms: int | None) -> str | None:
    """A time for programs: RFC 3339 with milliseconds."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def masked(email: str, personal: bool) -> str:
    """``ann@example.com`` as ``a***@example.com`` unless ``personal``."""
    if personal:
        return email
    local, at, domain = email.rpartition("@")
    return f"{local[:1]}***{at}{domain}"


def found_item(f: Found, personal: bool) -> dict[str, Any]:
    return {
        "id": spell(f.message_id),
        "recipient": masked(f.email, personal),
        "recipient_id": spell(f.recipient_id),
        "state": f.state.value,
        "error_class": f.error_class or None,
        "attempts": f.attempts,
        "producer": f.producer,
        "stream": f.stream,
        "template": f.template,
        "accepted_at": stamp(f.accepted_at),
        "changed_at": stamp(f.changed_at),
        "due_at": stamp(f.due_at) if f.state.value in ("queued", "deferred") else None,
    }


def show_items(
    items: Sequence[dict[str, Any]],
    columns: Sequence[str],
    as_json: bool,
    as_csv: bool = False,
    **more: Any,
) -> None:
    """A list: ``{"items": […]}``, all columns as CSV, or a table of ``columns``."""
    if as_json and as_csv:
        fail("--json or --csv, not both", 2)
    if as_json:
        show_json({"items": list(items), **more})
        return
    if as_csv:
        show_csv(list(items[0]) if items else list(columns), items)
        return
    if not items:
        print("nothing found")
        return
    table(columns, ([_cell(item.get(c)) for c in columns] for item in items))


def show_csv(columns: Sequence[str], items: Iterable[Mapping[str, Any]]) -> None:
    """RFC 4180 on standard output, safe to open in a spreadsheet."""
    writer = csv.writer(sys.stdout)
    writer.writerow(columns)
    writer.writerows([csv_cell(item.get(c)) for c in columns] for item in items)


def csv_cell(value: Any) -> str:
    """Text that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    text = clean(text)
    return "'" + text if isinstance(value, str) and text[:1] in tuple("=+-@\t\r") else text


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # In a pipe nothing is cut: a line is as long as it needs.
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, markup=False, width=500)
    grid = Table(box=None, pad_edge=False, header_style="bold")
    cells = list(rows)
    for n, name in enumerate(columns):
        texts = [row[n] for row in cells if row[n]]
        figures = texts and all(re.fullmatch(r"-?[\d.]+", text) for text in texts)
        grid.add_column(
            name.replace("_", " "), overflow="fold", justify="right" if figures else "left"
        )
    for row in cells:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    if console.is_terminal:
        console.print(grid)
        return
    # Nor is a line filled up with blanks.
    with console.capture() as written:
        console.print(grid)
    print("\n".join(line.rstrip() for line in written.get().splitlines()))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        # RFC 3339 stamps are for programs.
        if len(value) >= 29 and value[10:11] == "T" and value.endswith("+00:00"):
            return value[:19].replace("T", " ") + "Z"
        return value
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
