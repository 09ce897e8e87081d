"""Writing how conversations ended, many in one transaction.

Owns the settlement: state, attempt, event and kept bytes together, applied
only to a row that is still ``sending`` under the settlement's token. Never
decides where a recipient goes: ``delivery.retry`` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache

import sqlalchemy as sa

from mailgate.journal.buckets import BucketKey, ensure_bucket
from mailgate.journal.database import Database, packed, surely
from mailgate.journal.inserting import Inserting
from mailgate.journal.suppressions import Blame, Suppressions
from mailgate.journal.tables import renderings
from mailgate.journal.telling import EVENT
from mailgate.limits.breaker import Signal, Subject
from mailgate.model.state import State, allowed
from mailgate.model.value import Value


class Attempt(Value, frozen=True):
    """The record of one conversation for one recipient, with the relay's own words."""

    relay: str
    started_at: int
    ended_at: int
    kind: str
    phase: str
    code: int
    enhanced: str
    reply: str
    error_class: str


class Settlement(Value, frozen=True):
    """Where one claimed recipient goes.

    ``path`` has each state on the way, the last being where it rests (uncertain
    and queued again is two steps). ``bucket`` is set when it moves to another,
    as failover does. ``stored`` are bytes to keep for the next attempt;
    ``deaths`` is added to the row's count; a ``sensitive`` message forgets its content
    once all its recipients have it. ``blame`` is what its failure says about the
    address, ``took`` the address when there was none; ``signals`` are what the
    conversation showed about relay, destination and sender. Raises ``ValueError`` when the table
    of transitions does not know the path.
    """

    recipient_id: int
    message_id: int
    token: int
    path: tuple[State, ...]
    due_at: int
    attempt: Attempt | None = None
    error_class: str = ""
    bucket: BucketKey | None = None
    suspect: bool = False
    deaths: int = 0
    stored: bytes | None = None
    sensitive: bool = False
    note: str = ""
    blame: Blame | None = None
    #: The folded address that mail was taken for.
    took: str = ""
    signals: tuple[tuple[Subject, Signal], ...] = ()

    def __post_init__(self) -> None:
        source = State.SENDING
        for target in self.path:
            if not allowed(source, target):
                raise ValueError(f"no recipient goes from {source} to {target}")
            source = target


#: It is ours still.
_SENDING = surely("recipients.state = 'sending'")
_ROW = {
    "id": "bigint",
    "token": "bigint",
    "state": "text",
    "due_at": "bigint",
    "error_class": "text",
    "counted": "bigint",
    "steps": "bigint",
    "bucket_id": "bigint",
    "suspect": "boolean",
    "deaths": "bigint",
}
_ATTEMPT = {
    "recipient_id": "bigint",
    "n": "bigint",
    "relay": "text",
    "started_at": "bigint",
    "ended_at": "bigint",
    "kind": "text",
    "phase": "text",
    "code": "bigint",
    "enhanced": "text",
    "reply": "text",
    "error_class": "text",
}


class Settling:
    """The statements of a settlement, made once for a database."""

    def __init__(self, database: Database) -> None:
        rows = database.rows
        self._update = sa.text(
            "UPDATE recipients SET state = v.state, due_at = v.due_at,"
            " error_class = v.error_class, attempts = recipients.attempts + v.counted,"
            " seq = recipients.seq + v.steps,"
            " bucket_id = COALESCE(v.bucket_id, recipients.bucket_id),"
            " suspect = v.suspect, deaths = recipients.deaths + v.deaths,"
            f" lease_id = NULL, changed_at = :now FROM {rows(_ROW)}"
            " WHERE recipients.id = v.id AND recipients.token = v.token"
            # As in the claim: by the number, and not by what is being sent.
            f" AND {_SENDING}"
            " RETURNING recipients.id, recipients.attempts, recipients.seq"
        )
        self._attempts = Inserting(database, "attempts", _ATTEMPT)
        self._suppressions = Suppressions(database)
        self.events = Inserting(database, "events", EVENT)
        self._forget = sa.text(
            "DELETE FROM renderings WHERE recipient_id IN (SELECT id FROM "
            + rows({"id": "bigint"})
            + ")"
        )

        # Two settle the last two at once: the second must see what the first wrote.
        self._sensitive = sa.text(
            f"SELECT id FROM messages WHERE id IN (SELECT id FROM {rows({'id': 'bigint'})})"
            # In the order of ids, and not by walking along all of them.
            " AND sensitive ORDER BY 0 + id" + ("" if database.sqlite else " FOR UPDATE")
        )
        self._redact = redaction(database.sqlite, "m.sensitive")

    def write(
        self, connection: sa.Connection, settlements: Sequence[Settlement], now: int
    ) -> set[int]:
        """Apply the settlements; gives the recipients that were still ours to settle."""
        if not settlements:
            return set()
        buckets: dict[BucketKey, int] = {}
        for s in settlements:
            if s.bucket is not None and s.bucket not in buckets:
                buckets[s.bucket] = ensure_bucket(connection, s.bucket)
        # Sorted, so that two settlers lock rows in one order.
        ordered = sorted(settlements, key=lambda s: s.recipient_id)
        rows = [
            (
                s.recipient_id,
                s.token,
                s.path[-1].value,
                s.due_at,
                s.error_class or None,
                1 if s.attempt else 0,
                len(s.path),
                buckets[s.bucket] if s.bucket else None,
                s.suspect,
                s.deaths,
            )
            for s in ordered
        ]
        found = connection.execute(self._update, {"rows": packed(rows), "now": now})
        written = {id_: (attempts, seq) for id_, attempts, seq in found}
        mine = [s for s in ordered if s.recipient_id in written]
        attempts = [
            (s.recipient_id, written[s.recipient_id][0], *_attempt_row(s.attempt))
            for s in mine
            if s.attempt
        ]
        self._attempts.write(connection, attempts)
        events = []
        for s in mine:
            n, seq = written[s.recipient_id]
            for step, state in enumerate(s.path):
                number = seq - len(s.path) + step + 1
                detail = _detail(s, n, state)
                events.append((s.message_id, s.recipient_id, number, state.value, now, detail))
        self.events.write(connection, events)
        keep = [{"recipient_id": s.recipient_id, "content": s.stored} for s in mine if s.stored]
        over = [(s.recipient_id,) for s in mine if s.path[-1] is State.SENT and not s.stored]
        over = [row for row in over if written[row[0]][0] > 1]
        if keep or over:
            ids = over + [(k["recipient_id"],) for k in keep]
            connection.execute(self._forget, {"rows": packed(ids)})
        if keep:
            connection.execute(renderings.insert(), keep)
        self._suppressions.blame(connection, [s.blame for s in mine if s.blame], now)
        self._suppressions.took(connection, [s.took for s in mine if s.took])
        done = {s.message_id for s in mine if s.sensitive and s.path[-1] is State.SENT}
        self.redact(connection, done)
        return set(written)

    def redact(self, connection: sa.Connection, message_ids: Iterable[int]) -> None:
        """Make those of the messages forget their content that are sensitive and over."""
        rows = packed([(i,) for i in sorted(message_ids)])
        if rows == "[]":
            return
        for message_id in connection.execute(self._sensitive, {"rows": rows}).scalars().all():
            for statement in self._redact:
                connection.execute(statement, {"message": message_id})


#: Nobody with one of these waits for the mail any more, or can be sent it again.
SPENT = ("cancelled", "digested", "sent", "throttled")


def redaction(sqlite: bool, more: str = "true") -> tuple[sa.TextClause, ...]:
    """What a message forgets when it is spent, and meets one ``more`` condition on ``m``."""
    secret = ("data", "text", "html", "subject", "headers")
    if sqlite:
        paths = ", ".join(f"'$.{k}'" for k in secret)
        lean = f"json_set(json_remove(body, {paths}), '$.redacted', json('true'))"
    else:
        gone = " ".join(f"- '{k}'" for k in secret)
        lean = f"((body::jsonb {gone}) || '{{\"redacted\": true}}'::jsonb)::text"
    spent = ", ".join(f"'{state}'" for state in SPENT)
    over = (
        f"EXISTS (SELECT 1 FROM messages m WHERE m.id = :message AND {more})"
        " AND NOT EXISTS (SELECT 1 FROM recipients r WHERE r.message_id = :message"
        f" AND r.state NOT IN ({spent}))"
    )
    return (
        sa.text(f"UPDATE messages SET body = {lean} WHERE id = :message AND {over}"),
        sa.text(f"UPDATE recipients SET own = NULL WHERE message_id = :message AND {over}"),
        sa.text(f"DELETE FROM attachments WHERE message_id = :message AND {over}"),
        sa.text(
            "DELETE FROM renderings WHERE recipient_id IN"
            f" (SELECT id FROM recipients WHERE message_id = :message) AND {over}"
        ),
    )


def _attempt_row(a: Attempt) -> tuple[object, ...]:
    return (
        a.relay,
        a.started_at,
        a.ended_at,
        a.kind,
        a.phase,
        a.code,
        a.enhanced,
        a.reply,
        a.error_class,
    )


def _detail(s: Settlement, attempts: int, state: State) -> str:
    tried = (attempts, s.attempt.relay, s.attempt.code) if s.attempt else None
    due = s.due_at if state in (State.DEFERRED, State.QUEUED) else None
    return _said(tried, s.error_class, s.note, due)


@lru_cache(maxsize=512)
def _said(tried: tuple[int, str, int] | None, error_class: str, note: str, due: int | None) -> str:
    """The detail of an event as JSON; most are the same."""
    said: dict[str, object] = {}
    if tried:
        said["attempt"], said["relay"], said["code"] = tried
    if error_class:
        said["error_class"] = error_class
    if note:
        said["note"] = note
    if due is not None:
        said["due_at"] = due
    return json.dumps(said, separators=(",", ":"))
