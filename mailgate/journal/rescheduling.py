"""A message at another time, and holding one until the transaction ends.

Owns when a message may still be rescheduled, and by when it then expires. Never decides
who may ask for it: ``orders`` and the operators do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from mailgate.journal.database import Database, packed
from mailgate.journal.surgery import Act
from mailgate.journal.tables import buckets, messages
from mailgate.journal.telling import tell
from mailgate.model.state import Lane, State

#: The hash of a place that no message has taken: no body has it.
PLACE = ""
#: Mail went out, may have, or is about to.
AWAY = frozenset(
    {State.SENDING, State.SENT, State.UNCERTAIN, State.CAPTURED, State.DIGESTED, State.DEFERRED}
)


MESSAGE = "SELECT id, stream, accepted_at, send_at, expires_at, body_hash FROM messages WHERE"


@dataclass(frozen=True, slots=True)
class When:
    """Another time for a message (ms).

    ``lifetimes`` has how long mail of a stream lives where no ``expires_at`` is said (ms).
    """

    send_at: int
    expires_at: int | None = None
    lifetimes: Mapping[str, int] = field(default_factory=dict)


class Rescheduling:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.lock = "" if database.sqlite else " FOR UPDATE"

    def reschedule(
        self,
        connection: sa.Connection,
        message: Any,
        people: Sequence[Any],
        when: When,
        act: Act,
        now: int,
    ) -> tuple[str, str | None, set[Lane]]:
        """Send a message at another time; gives the result, why not, and the lanes to ring.

        ``message`` and ``people`` are as ``held`` gives them.
        """
        waiting = [p for p in people if p.state == State.QUEUED and not p.attempts]
        if any(p.state == State.HELD for p in people):
            return "refused", "the message is held: it waits for an operator", set()
        if not waiting or any(p.attempts or State(p.state) in AWAY for p in people):
            # Once one was tried, the message has a date.
            return "too_late", None, set()
        expires = _expires_at(when, message)
        if expires is not None and expires <= when.send_at:
            return "refused", "send_at is not before the message's expires_at", set()
        connection.execute(
            messages.update()
            .where(messages.c.id == message.id)
            .values(send_at=when.send_at, expires_at=expires)
        )
        rows = self._database.rows({"id": "bigint"})
        found = connection.execute(
            sa.text(
                "UPDATE recipients SET due_at = :due, expires_at = :expires, seq = seq + 1,"
                " token = token + 1, changed_at = :now, error_class = NULL"
                f" WHERE id IN (SELECT id FROM {rows}) AND state = 'queued' AND attempts = 0"
                " RETURNING id, seq"
            ),
            {
                "rows": packed([(p.id,) for p in waiting]),
                "due": when.send_at,
                "expires": expires,
                "now": now,
            },
        ).all()
        said = {"by": act.who, "verb": act.verb, "reason": act.reason, "due_at": when.send_at}
        for row in sorted(found):
            tell(connection, message.id, row.seq, row.id, State.QUEUED.value, said, now)
        if when.send_at > now:
            return "done", None, set()
        ways = {p.bucket_id for p in waiting}
        lanes = connection.execute(sa.select(buckets.c.lane).where(buckets.c.id.in_(ways)))
        return "done", None, {Lane(lane) for lane in lanes.scalars()}

    def held(self, connection: sa.Connection, message_id: int) -> tuple[Any, Sequence[Any]] | None:
        """A message and its recipients, kept from every claim until the transaction ends."""
        found = connection.execute(
            sa.text(f"{MESSAGE} id = :id{self.lock}"), {"id": message_id}
        ).first()
        if found is None or found.body_hash == PLACE:
            return None
        return found, self.people(connection, message_id)

    def people(self, connection: sa.Connection, message_id: int) -> Sequence[Any]:
        """The message's recipients, held until the transaction ends: no claim comes between."""
        return connection.execute(
            sa.text(
                "SELECT id, n, email, state, attempts, due_at, error_class, bucket_id"
                f" FROM recipients WHERE message_id = :message ORDER BY id{self.lock}"
            ),
            {"message": message_id},
        ).all()


def _expires_at(when: When, message: Any) -> int | None:
    """When the message expires after a move."""
    if when.expires_at is not None:
        return when.expires_at
    lifetime = when.lifetimes.get(message.stream)
    first = message.accepted_at if message.send_at is None else message.send_at
    if lifetime is not None and message.expires_at == first + lifetime:
        # Not said, but what follows from the stream: it moves along.
        return when.send_at + lifetime
    expires: int | None = message.expires_at
    return expires
