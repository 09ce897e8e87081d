"""Reading what a schedule sends and to whom: rows out of a file, a database or a service.

Owns the forms of files and answers, and their caps. Never decides who gets a mail.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from mailgate.config.schedules import Reading, Source
from mailgate.journal.foreign import ForeignError, rows
from mailgate.schedules.fetch import FetchError, fetch

#: A file without a source has no caps of its own.
_FILE_BYTES = Source(url="https://localhost").max_bytes


class ReadingError(Exception):
    """A source cannot be read; says why, in one line."""


def read(
    reading: Reading, sources: Mapping[str, Source], since: int, until: int, most: int
) -> list[Any]:
    """The rows, as JSON could hold them: objects, or plain values where a list has them.

    ``since`` and ``until`` are milliseconds, ``most`` how many rows there may be. Raises
    ``ReadingError``.
    """
    try:
        if reading.file is not None:
            found = _file(reading.file)
        else:
            assert reading.source is not None
            source = sources[reading.source]
            if reading.sql is not None:
                said = rows(
                    source.url, reading.sql, since, until, most=most, timeout=source.timeout
                )
                # NULL is left out: a template's schema asks for a text or for nothing.
                found = [{k: _plain(k, v) for k, v in row.items() if v is not None} for row in said]
            else:
                found = _listed(fetch(source, reading.path or "", since, until))
    except (ForeignError, FetchError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadingError(_named(reading, error)) from error
    except ValueError as error:  # JSON
        raise ReadingError(_named(reading, f"is not JSON: {error}")) from error
    except RecursionError as error:
        raise ReadingError(_named(reading, "is nested too deeply")) from error
    if len(found) > most:
        raise ReadingError(_named(reading, f"has more than {most} rows"))
    return found


def _named(reading: Reading, what: object) -> str:
    if isinstance(what, OSError) and what.strerror:
        what = f"cannot be read: {what.strerror}"
    return f"{reading.file or f'source {reading.source}'}: {what}"


def _file(path: Path) -> list[Any]:
    with path.open("rb") as file:
        content = file.read(_FILE_BYTES + 1)
    if len(content) > _FILE_BYTES:
        raise FetchError(f"is larger than {_FILE_BYTES} bytes")
    # A spreadsheet may begin it with a byte order mark.
    text = content.decode("utf-8-sig")
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text), strict=True)
        found = []
        for row in reader:
            if None in row or None in row.values():
                raise FetchError(f"line {reader.line_num} has not as many fields as the first")
            found.append(dict(row))
        return found
    if path.suffix == ".json":
        return _listed(json.loads(text))
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _listed(document: Any) -> list[Any]:
    """A list, or an object whose ``items`` are one."""
    if isinstance(document, dict):
        document = document.get("items")
    if not isinstance(document, list):
        raise FetchError("holds no list, nor an object with a list as items")
    return document


def _plain(column: str, value: Any) -> Any:
    """A database's value as JSON could hold it."""
    match value:
        case bool() | int() | float() | str():
            return value
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case dict() | list():
            return value
    kind = type(value).__name__
    raise FetchError(f"column {column} holds a {kind}, which no mail can show")
