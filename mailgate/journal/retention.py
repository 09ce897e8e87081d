"""Deleting what is over, and making one person's mail forget them; a chunk a transaction.

Owns the statements, and the one rule of what is over: nothing of the message waits, is
being sent, or stands uncertain or held. Never decides how long anything is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sa

from mailgate.journal.database import Database, packed
from mailgate.journal.settling import SPENT, redaction
from mailgate.journal.tables import (
    actions,
    events,
    messages,
    parked,
    published,
    recipients,
    renderings,
)
from mailgate.model.ids import first_of
from mailgate.model.state import FINAL

#: What stands in place of an erased address. RFC 2606: nobody can ever have it.
ERASED = "erased@erased.invalid"


class Retention:
    def __init__(self, database: Database) -> None:
        rows = database.rows({"id": "bigint"})
        mine = f"(SELECT id FROM {rows})"
        people = f"(SELECT r.id FROM recipients r WHERE r.message_id IN {mine})"
        self._delete = [
            sa.text(f"DELETE FROM {table} WHERE {column} IN {which}")
            for table, column, which in (
                ("renderings", "recipient_id", people),
                ("digest_items", "recipient_id", people),
                ("attempts", "recipient_id", people),
                ("events", "message_id", mine),
                ("attachments", "message_id", mine),
                ("recipients", "message_id", mine),
                ("messages", "id", mine),
            )
        ]
        self._redact = redaction(database.sqlite)
        # Whoever resends in this very moment waits for us, or we for them.
        self._lock = "" if database.sqlite else " FOR UPDATE"

    def over(self, connection: sa.Connection, before: int, most: int, after: int = 0) -> list[int]:
        """Up to ``most`` messages of which nothing has moved since ``before`` (ms), by id."""
        return self._found(connection, before, most, after, FINAL)

    def talkative(
        self, connection: sa.Connection, before: int, most: int, after: int = 0
    ) -> list[int]:
        """Those of them that still have content, and can be sent to nobody again."""
        told = '"redacted":true' if connection.dialect.name == "sqlite" else '"redacted": true'
        content = messages.c.body.not_like(f"%{told}%")
        return self._found(connection, before, most, after, SPENT, content)

    def _found(
        self,
        connection: sa.Connection,
        before: int,
        most: int,
        after: int,
        ended: Sequence[str] | frozenset[str],
        *more: sa.ColumnElement[bool],
    ) -> list[int]:
        r = recipients.c
        alive = sa.exists().where(
            r.message_id == messages.c.id,
            sa.or_(r.state.not_in(sorted(ended)), r.changed_at >= before),
        )
        query = (
            sa.select(messages.c.id)
            .where(messages.c.id > after, messages.c.id < first_of(before), ~alive, *more)
            .order_by(messages.c.id)
            .limit(most)
        )
        return list(connection.execute(query).scalars())

    def delete(self, connection: sa.Connection, before: int, ids: Sequence[int]) -> int:
        """Delete those of the messages that are over still, with all that belongs to them."""
        sure = self._sure(connection, before, ids)
        for statement in self._delete:
            connection.execute(statement, {"rows": packed([(i,) for i in sure])})
        return len(sure)

    def _sure(self, connection: sa.Connection, before: int, ids: Sequence[int]) -> list[int]:
        if self._lock:
            held = sa.select(recipients.c.id).where(recipients.c.message_id.in_(ids))
            # By a sum, or PostgreSQL may walk the whole key to have its order without sorting.
            connection.execute(held.order_by(recipients.c.id + 0).with_for_update()).all()
        first, last = min(ids) - 1, max(ids)
        found = self._found(connection, before, len(ids), first, FINAL, messages.c.id <= last)
        return sorted(set(found) & set(ids))

    def redact(self, connection: sa.Connection, ids: Sequence[int]) -> int:
        """Make messages forget data, bodies and files; gives how many did."""
        done = 0
        for number in ids:
            first, *others = self._redact
            done += connection.execute(first, {"message": number}).rowcount
            for statement in others:
                connection.execute(statement, {"message": number})
        return done

    def parked(self, connection: sa.Connection, before: int, most: int) -> int:
        """Delete parked rows that were resolved before then, and the events that are theirs."""
        # By their numbers: nothing was resolved before it was parked.
        low = parked.c.id < first_of(before)
        old = sa.select(parked.c.id).where(low, parked.c.resolved_at < before).limit(most)
        gone = list(connection.execute(old).scalars())
        if gone:
            connection.execute(events.delete().where(events.c.message_id.in_(gone)))
            connection.execute(parked.delete().where(parked.c.id.in_(gone)))
        return len(gone)

    def answers(self, connection: sa.Connection, before: int, most: int) -> int:
        """Delete answers of before then that were about no message."""
        mine = (events.c.message_id == 0, events.c.at < before)
        old = list(connection.execute(sa.select(events.c.id).where(*mine).limit(most)).scalars())
        if old:
            connection.execute(events.delete().where(events.c.id.in_(old)))
        return len(old)

    def published(self, connection: sa.Connection, before: int, most: int) -> int:
        """Forget when events were published that went out before then; that they were stands."""
        old = sa.select(published.c.second).where(published.c.second < before // 1000).limit(most)
        return connection.execute(published.delete().where(published.c.second.in_(old))).rowcount

    def actions(self, connection: sa.Connection, before: int, most: int) -> int:
        old = sa.select(actions.c.id).where(actions.c.at < before).limit(most)
        return connection.execute(actions.delete().where(actions.c.id.in_(old))).rowcount

    def hits(self, connection: sa.Connection, before: int, most: int) -> int:
        """Delete what throttles remember from before then, the oldest rows first.

        What was charged late in the order of its number goes with a later clean-up.
        """
        found = connection.execute(
            sa.text(
                "DELETE FROM throttle_hits WHERE id IN"
                " (SELECT id FROM (SELECT id, at FROM throttle_hits WHERE id > 0"
                " ORDER BY id LIMIT :most) AS h WHERE at < :before)"
            ),
            {"before": before, "most": most},
        )
        return found.rowcount

    # --- one person ------------------------------------------------------------------

    def of(self, connection: sa.Connection, address: str, most: int) -> list[tuple[int, int, str]]:
        """(recipient, message, state) of up to ``most`` rows that know an address, in any case."""
        r = recipients.c
        query = (
            sa.select(r.id, r.message_id, r.state)
            .where(sa.func.lower(r.email) == address.lower())
            .order_by(r.id)
            .limit(most)
        )
        return [(row.id, row.message_id, row.state) for row in connection.execute(query)]

    def forget(
        self, connection: sa.Connection, address: str, rows: Sequence[tuple[int, int]]
    ) -> None:
        """Write nobody in the place of ``address`` in recipients (id, message) that are over.

        A message that was theirs alone forgets its content; a shared one forgets them.
        """
        for recipient, message in rows:
            connection.execute(
                recipients.update()
                .where(recipients.c.id == recipient)
                .values(email=ERASED, name="", own=None)
            )
            connection.execute(renderings.delete().where(renderings.c.recipient_id == recipient))
            connection.execute(
                sa.text("UPDATE attempts SET reply = '' WHERE recipient_id = :id"),
                {"id": recipient},
            )
            body = connection.execute(
                sa.select(messages.c.body, messages.c.recipients).where(messages.c.id == message)
            ).one()
            said = json.loads(body.body)
            if body.recipients == 1:
                for name in ("data", "text", "html", "subject", "headers", "reply_to"):
                    said.pop(name, None)
                connection.execute(
                    sa.text("DELETE FROM attachments WHERE message_id = :id"), {"id": message}
                )
            for field in ("to", "cc"):
                for pair in said.get(field, ()):
                    if pair[0].lower() == address.lower():
                        pair[:] = [ERASED, ""]
            text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
            connection.execute(
                messages.update()
                .where(messages.c.id == message)
                .values(body=text, **({"metadata": None} if body.recipients == 1 else {}))
            )

    def parked_of(self, connection: sa.Connection, address: str) -> list[int]:
        """Parked rows whose bytes name an address."""
        pattern = (
            "%"
            + address.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            + "%"
        )
        if connection.dialect.name == "sqlite":
            text = sa.func.lower(sa.cast(parked.c.body, sa.Text))
        else:
            text = sa.func.lower(sa.func.encode(parked.c.body, "escape"))
        query = sa.select(parked.c.id).where(text.like(pattern, escape="\\")).order_by(parked.c.id)
        return list(connection.execute(query).scalars())

    def forget_parked(
        self, connection: sa.Connection, ids: Sequence[int], who: str, now: int
    ) -> None:
        """Empty parked rows, which nobody can replay any more."""
        connection.execute(
            parked.update()
            .where(parked.c.id.in_(ids))
            .values(
                body=b"",
                faults="[]",
                state="discarded",
                resolved_at=sa.func.coalesce(parked.c.resolved_at, now),
                resolved_by=who[:255],
                reason="erased",
            )
        )
