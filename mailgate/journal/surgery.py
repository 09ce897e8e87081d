"""What operators change: send again, cancel, discard; each with an audit row.

Owns the compare-and-set of these moves, so that ten resends of one failure are
one. Never chooses what to change: ``operations`` does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mailgate.journal.database import Database, packed
from mailgate.journal.settling import Settling
from mailgate.journal.tables import actions, parked
from mailgate.model.state import Lane, State, allowed


@dataclass(frozen=True, slots=True)
class Act:
    """Who does what, and why."""

    who: str
    verb: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    recipient_ids: tuple[int, ...]
    lanes: frozenset[Lane]


class Surgery:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._settling = Settling(database)
        row = {"id": "bigint"}
        self._move = (
            "UPDATE recipients SET state = :target, due_at = :now, seq = recipients.seq + 1,"
            " token = recipients.token + 1, changed_at = :now, suspect = false, deaths = 0,"
            " expires_at = CASE WHEN expires_at <= :now THEN NULL ELSE expires_at END,"
            " error_class = %s"
            f" WHERE id IN (SELECT id FROM {database.rows(row)}) AND state IN (%s)"
            " RETURNING id, message_id, seq, bucket_id"
        )
        event = {
            "message_id": "bigint",
            "recipient_id": "bigint",
            "seq": "bigint",
            "kind": "text",
            "at": "bigint",
            "detail": "text",
        }
        names = ", ".join(event)
        self._events = sa.text(
            f"INSERT INTO events ({names}) SELECT {names} FROM {database.rows(event)} WHERE true"
        )

    def move(self, connection: sa.Connection, ids: Sequence[int], target: State, act: Act) -> Moved:
        """Move those of ``ids`` that may go to ``target``; the others are left alone."""
        now = self._database.now()
        sources = [s for s in State if s is not target and allowed(s, target)]
        if target is State.QUEUED:
            # Waiting ones wait already, and what is being sent is not ours to move.
            sources = [s for s in sources if s not in (State.SENDING, State.DEFERRED)]
        states = ", ".join(f"'{s.value}'" for s in sources)
        error_class = "NULL" if target is State.QUEUED else "error_class"
        found = connection.execute(
            sa.text(self._move % (error_class, states)),
            {"rows": packed([(i,) for i in sorted(ids)]), "target": target.value, "now": now},
        ).all()
        if not found:
            return Moved((), frozenset())
        note = json.dumps({"by": act.who, "verb": act.verb, "reason": act.reason})
        rows = [(r.message_id, r.id, r.seq, target.value, now, note) for r in found]
        connection.execute(self._events, {"rows": packed(rows)})
        audit(connection, act, len(found), now)
        if target is State.CANCELLED:
            # Nobody waits for it any more, and nobody can send it again.
            self._settling.redact(connection, {r.message_id for r in found})
        numbers = sorted({r.bucket_id for r in found})
        lanes = connection.execute(
            sa.text(
                "SELECT DISTINCT lane FROM buckets WHERE id IN (SELECT id FROM "
                + self._database.rows({"id": "bigint"})
                + ")"
            ),
            {"rows": packed([(n,) for n in numbers])},
        ).scalars()
        return Moved(tuple(r.id for r in found), frozenset(Lane(lane) for lane in lanes))


def audit(connection: sa.Connection, act: Act, count: int, now: int) -> None:
    """Write down what an operator did."""
    connection.execute(
        actions.insert().values(
            at=now,
            who=act.who[:255],
            verb=act.verb,
            reason=act.reason,
            detail=act.detail,
            count=count,
        )
    )


def resolve_parked(connection: sa.Connection, number: int, state: str, act: Act, now: int) -> bool:
    """Mark a parked row ``replayed`` or ``discarded``; false when it was resolved before."""
    found = connection.execute(
        parked.update()
        .where(parked.c.id == number, parked.c.state == "parked")
        .values(state=state, resolved_at=now, resolved_by=act.who[:255], reason=act.reason)
    )
    if found.rowcount != 1:
        return False
    audit(connection, act, 1, now)
    return True
