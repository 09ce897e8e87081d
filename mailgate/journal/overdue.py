"""What waits in a shut bucket and is over all the same: nobody takes it, and it need not wait.

Owns the look for it, which reads what has come to be over since the look before and nothing
else, however much waits. Never expires anything: the turn of a worker does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from mailgate.journal.queue import HEAD, Bucket, Head, head_of
from mailgate.journal.tables import WAITING_SQL
from mailgate.model.state import State

_HERE = f"FROM recipients r JOIN messages m ON m.id = r.message_id WHERE r.{WAITING_SQL}"
#: By the index of expiry, in which there is only what expires.
_EXPIRED = (
    f"SELECT * FROM ({HEAD} {_HERE} AND r.expires_at <= :now AND r.bucket_id + 0 = :bucket"
    " AND r.due_at <= :now ORDER BY r.expires_at LIMIT :most) AS expired_heads"
)


def overdue(
    connection: sa.Connection,
    bucket: Bucket,
    now: int,
    oldest: Mapping[str, int],
    before: Mapping[str, int],
    most: int,
) -> list[Head]:
    """Those of a bucket whose time is over, or that were due before their stream's ``oldest``.

    ``before`` is what ``oldest`` was at a look that found all: what was due before that is
    not looked at again. A stream without one is looked through from the beginning.
    """
    parts = [_EXPIRED]
    values: dict[str, object] = {"bucket": bucket.id, "now": now, "most": most}
    for part, said in _given_up(oldest, before):
        parts.append(part)
        values |= said
    rows = connection.execute(sa.text(" UNION ALL ".join(parts)), values)
    found = {head.id: head for head in (head_of(bucket, row) for row in rows)}
    return list(found.values())[:most]


def _given_up(
    oldest: Mapping[str, int], before: Mapping[str, int]
) -> Iterator[tuple[str, dict[str, object]]]:
    """One select for each span of due times, of the streams that share it, and state."""
    spans: dict[tuple[int, int], list[str]] = {}
    for stream, upto in oldest.items():
        spans.setdefault((before.get(stream, -1), upto), []).append(stream)
    for n, ((since, upto), streams) in enumerate(spans.items()):
        names = {f"stream{n}_{i}": name for i, name in enumerate(streams)}
        of = ", ".join(f":{name}" for name in names)
        for state in (State.QUEUED, State.DEFERRED):
            yield (
                (
                    f"SELECT * FROM ({HEAD} {_HERE} AND r.bucket_id = :bucket"
                    f" AND r.state = '{state}' AND r.due_at > :since{n} AND r.due_at <= :upto{n}"
                    f" AND m.stream IN ({of}) ORDER BY r.due_at, r.id LIMIT :most)"
                    f" AS {state}_heads{n}"
                ),
                {f"since{n}": since, f"upto{n}": upto, **names},
            )
