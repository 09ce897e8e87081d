"""Per-recipient throttles: who was written to when, and who must wait.

Owns the sliding windows of every recipient, exact over all workers because
they are read and written in the transaction of the claim. Never knows an
address: keys are HMACs under a secret that never leaves the journal.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from mailgate.journal.database import Database, packed


@dataclass(frozen=True, slots=True)
class Charge:
    """One window that a claim must fit into: at most ``limit`` in any ``window`` ms."""

    key: str
    limit: int
    window: int
    on_limit: Literal["defer", "drop"]


@dataclass(frozen=True, slots=True)
class Wait:
    """A claim that did not fit: it may ask again at ``due_at``, or is dropped."""

    due_at: int
    drop: bool
    limit: str


def charge_key(secret: bytes, *parts: str) -> str:
    """The name of a window: an HMAC over producer, folded address and rule."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hmac.new(secret, text, hashlib.sha256).hexdigest()[:40]


def fit(
    wanted: Sequence[tuple[int, Sequence[Charge]]],
    hits: Mapping[str, Sequence[int]],
    now: int,
) -> tuple[list[int], dict[int, Wait]]:
    """Which recipients fit all their windows now, in the order given, and who waits.

    Pure. ``hits`` are the times already charged, ascending. Those that wait for
    one window are spread over the windows to come, so that a thousand of them
    do not all wake for one free place.
    """
    book = {key: list(times) for key, times in hits.items()}
    ahead: dict[str, int] = {}
    fits: list[int] = []
    waits: dict[int, Wait] = {}
    for recipient_id, charges in wanted:
        worst: Wait | None = None
        for c in charges:
            times = [t for t in book.get(c.key, ()) if t > now - c.window]
            if len(times) < c.limit:
                continue
            place = ahead.get(c.key, 0)
            turn, slot = divmod(place, c.limit)
            due = times[len(times) - c.limit + slot] + c.window * (1 + turn)
            if worst is None or due > worst.due_at or c.on_limit == "drop":
                worst = Wait(due, c.on_limit == "drop", f"{c.limit} in {c.window // 1000}s")
            if worst.drop:
                break
        if worst is None:
            fits.append(recipient_id)
            for c in charges:
                book.setdefault(c.key, []).append(now)
        else:
            waits[recipient_id] = worst
            for c in charges:
                ahead[c.key] = ahead.get(c.key, 0) + 1
    return fits, waits


class Throttles:
    def __init__(self, database: Database) -> None:
        self._sqlite = database.sqlite
        keys = database.rows({"key": "text"})
        # Locks in key order: two takers of the same recipient's mail go one after the other.
        self._lock = sa.text(
            "SELECT pg_advisory_xact_lock(hashtextextended(k.key, 7))"
            f" FROM (SELECT DISTINCT key FROM {keys} ORDER BY key) AS k"
        )
        self._hits = sa.text(
            "SELECT h.key, h.at FROM throttle_hits h WHERE h.key IN"
            f" (SELECT key FROM {keys}) AND h.at > :since ORDER BY h.at"
        )
        row = {"key": "text", "at": "bigint", "recipient_id": "bigint"}
        self._insert = sa.text(
            "INSERT INTO throttle_hits (key, at, recipient_id)"
            f" SELECT key, at, recipient_id FROM {database.rows(row)} WHERE true"
        )

    def decide(
        self, connection: sa.Connection, wanted: Sequence[tuple[int, Sequence[Charge]]], now: int
    ) -> tuple[list[int], dict[int, Wait]]:
        """``fit`` against the journal, holding the windows until the transaction ends."""
        charges = [c for _, several in wanted for c in several]
        if not charges:
            return [recipient_id for recipient_id, _ in wanted], {}
        keys = packed([(k,) for k in sorted({c.key for c in charges})])
        if not self._sqlite:
            connection.execute(self._lock, {"rows": keys})
        since = now - max(c.window for c in charges)
        hits: dict[str, list[int]] = {}
        for row in connection.execute(self._hits, {"rows": keys, "since": since}):
            hits.setdefault(row.key, []).append(row.at)
        return fit(wanted, hits, now)

    def charge(
        self,
        connection: sa.Connection,
        claimed: Iterable[tuple[int, Sequence[Charge]]],
        now: int,
    ) -> None:
        rows = [(c.key, now, recipient_id) for recipient_id, several in claimed for c in several]
        if rows:
            connection.execute(self._insert, {"rows": packed(rows)})


def secret(connection: sa.Connection) -> bytes:
    """The key of the HMACs, made at the first look. Runs in a write transaction."""
    connection.execute(
        sa.text(
            "INSERT INTO facts (name, value) VALUES ('throttle_secret', :value)"
            " ON CONFLICT (name) DO NOTHING"
        ),
        {"value": secrets.token_hex(32)},
    )
    value = connection.execute(
        sa.text("SELECT value FROM facts WHERE name = 'throttle_secret'")
    ).scalar_one()
    return bytes.fromhex(value)
