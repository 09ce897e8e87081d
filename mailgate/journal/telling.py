"""The rows that tell what happened: the columns of ``events``, and writing one.

Never decides what is told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import sqlalchemy as sa

from mailgate.journal.tables import events

#: The columns of ``events``.
EVENT = {
    "message_id": "bigint",
    "recipient_id": "bigint",
    "seq": "bigint",
    "kind": "text",
    "at": "bigint",
    "detail": "text",
}


def tell(
    connection: sa.Connection,
    message_id: int,
    seq: int,
    recipient_id: int | None,
    kind: str,
    said: Mapping[str, object],
    now: int,
) -> None:
    """Write one event; ``seq`` is 0 for one that is about no recipient."""
    detail = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    connection.execute(
        events.insert().values(
            message_id=message_id,
            recipient_id=recipient_id,
            seq=seq,
            kind=kind,
            at=now,
            detail=detail,
        )
    )
