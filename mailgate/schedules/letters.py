"""From rows to the documents that a producer would publish.

Owns which columns mean what. Pure. Never checks a document: the one way in does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mailgate.config.schedules import Schedule
from mailgate.contract.fields import MAX_RECIPIENTS

#: Columns of a recipient that are not data.
_OWN = ("email", "name", "locale", "data", "metadata")


class LettersError(Exception):
    """The rows make no message; says which and why, and holds nothing of them."""


def documents(
    name: str,
    schedule: Schedule,
    producer: str,
    stream: str,
    at: int,
    people: Sequence[Any],
    items: Sequence[Any] | None,
) -> Iterator[tuple[str, bytes]]:
    """The messages of one fire, as many recipients in each as may be, with their identities.

    ``items`` are the rows that data gets, None where it gets none. Raises
    ``LettersError``.
    """
    moment = spelled(at)
    data = dict(schedule.data)
    if items is not None:
        assert schedule.data_from is not None
        data[schedule.data_from.name] = list(items)
    shared: dict[str, Any] = {
        "version": 1,
        "producer": producer,
        "stream": stream,
        "template": schedule.template,
        "subject": schedule.subject,
        "text": schedule.text,
        "html": schedule.html,
        "locale": schedule.locale,
        "tags": list(schedule.tags),
        "data": data if schedule.template else {},
        "metadata": {"schedule": name, "fire": moment},
    }
    shared = {key: value for key, value in shared.items() if value}
    everyone = [_recipient(row, number) for number, row in enumerate(people, 1)]
    for start in range(0, len(everyone), MAX_RECIPIENTS):
        identity = f"schedule:{name}:{moment}:{start // MAX_RECIPIENTS}"
        document = {
            **shared,
            "idempotency_key": identity,
            "recipients": everyone[start : start + MAX_RECIPIENTS],
        }
        try:
            yield identity, json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, UnicodeEncodeError) as error:
            raise LettersError(f"the rows cannot be written as JSON: {error}") from error


def spelled(ms: int) -> str:
    """A time as people and keys see it: RFC 3339 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _recipient(row: Any, number: int) -> Any:
    if isinstance(row, str):
        return {"email": row}
    if not isinstance(row, Mapping) or "email" not in row:
        raise LettersError(f"recipient {number} has no email")
    own = {key: row[key] for key in _OWN if row.get(key) not in (None, "")}
    data = {key: value for key, value in row.items() if key not in _OWN}
    said = own.get("data")
    if isinstance(said, Mapping):
        data |= said
    elif said is not None:
        data["data"] = said
    return {**own, "data": data} if data else own
