"""What is over by the clock: mail that nobody took in time, and keys that are free again.

Owns both statements, a chunk a transaction. Never deletes a message: ``retention`` does.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from mailgate.journal.database import Database, packed
from mailgate.journal.inserting import Inserting
from mailgate.journal.tables import TROUBLE_SQL, WAITING_SQL
from mailgate.journal.telling import EVENT
from mailgate.model.ids import first_of
from mailgate.model.state import FINAL

#: Why a recipient may be held and go on by itself, once its template is mended.
MENDABLE = ("template_missing", "template_broken")


class Lapsing:
    def __init__(self, database: Database) -> None:
        classes = ", ".join(f"'{name}'" for name in MENDABLE)
        lock = "" if database.sqlite else " FOR UPDATE SKIP LOCKED"
        self._over = sa.text(
            f"SELECT id FROM recipients WHERE {WAITING_SQL} AND expires_at <= :now"
            f" LIMIT :most{lock}"
        )
        # By the index of what went wrong.
        self._held = sa.text(
            f"SELECT id FROM recipients WHERE state = 'held' AND {TROUBLE_SQL}"
            " AND expires_at <= :now"
            f" AND error_class IN ({classes}) LIMIT :most{lock}"
        )
        ids = f"(SELECT id FROM {database.rows({'id': 'bigint'})})"
        self._expire = sa.text(
            "UPDATE recipients SET state = 'expired', error_class = 'expired', seq = seq + 1,"
            f" token = token + 1, changed_at = :now WHERE id IN {ids}"
            f" AND ({WAITING_SQL} OR state = 'held') RETURNING id, message_id, seq"
        )
        self._events = Inserting(database, "events", EVENT)
        final = ", ".join(f"'{state.value}'" for state in sorted(FINAL))
        self._keyed = sa.text(
            "SELECT m.id FROM messages m WHERE m.id > :after AND m.id < :before"
            " AND m.identity LIKE 'key:%' AND m.recipients > 0 AND NOT EXISTS (SELECT 1 FROM"
            f" recipients r WHERE r.message_id = m.id AND r.state NOT IN ({final}))"
            " ORDER BY m.id LIMIT :most"
        )
        self._free = sa.text(
            f"UPDATE messages SET identity = 'past:' || CAST(id AS TEXT) WHERE id IN {ids}"
        )

    def expire(self, connection: sa.Connection, now: int, most: int) -> int:
        """Expire up to ``most`` waiting recipients whose time is over, and such that are
        held for a template: it would be mended too late. Gives how many."""
        values = {"now": now, "most": most}
        found = [*connection.execute(self._over, values).scalars()]
        if len(found) < most:
            values["most"] = most - len(found)
            found += connection.execute(self._held, values).scalars()
        if not found:
            return 0
        rows = packed([(i,) for i in sorted(found)])
        said = json.dumps({"error_class": "expired"})
        gone = connection.execute(self._expire, {"rows": rows, "now": now}).all()
        self._events.write(
            connection, [(r.message_id, r.id, r.seq, "expired", now, said) for r in gone]
        )
        return len(gone)

    def free_keys(
        self, connection: sa.Connection, before: int, most: int, after: int
    ) -> tuple[int, int]:
        """Forget the keys of messages that were accepted before then (ms) and are over.

        Looks at those behind ``after``; gives how many, and the last that it saw: what is
        not over by then keeps its key for as long as it is kept.
        """
        values = {"before": first_of(before), "most": most, "after": after}
        found = [*connection.execute(self._keyed, values).scalars()]
        if not found:
            return 0, 0
        connection.execute(self._free, {"rows": packed([(i,) for i in found])})
        return len(found), found[-1]
