"""What a restored journal does not know: which of its waiting mail was sent since the backup.

Owns the statement that makes such recipients *uncertain*, and the end of all claims that
stood in the backup. Never chooses what is sent again: an operator does, with evidence.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from mailgate.journal import history
from mailgate.journal.database import Database
from mailgate.journal.inserting import Inserting
from mailgate.journal.surgery import Act, audit
from mailgate.journal.telling import EVENT
from mailgate.model.state import State

#: The error class of what may have been sent after the backup.
RESTORED = "restored"
#: Recipients in one transaction.
CHUNK = 2000

#: Mail whose time has come; what was being sent; items of digests, which may have filled up
#: before their time; and what a worker lets go by itself as soon as its template serves.
_DOUBTFUL = (
    "(state IN ('queued', 'deferred') AND due_at <= :until OR state IN ('sending', 'gathering')"
    " OR state = 'held' AND error_class IN ('template_missing', 'template_broken'))"
)

#: Fires that wait are let be; every schedule counts as read, and looked at, up to then.
_SCHEDULES_GO_ON = (
    "UPDATE fires SET state = 'skipped', changed_at = :now"
    " WHERE state = 'pending' AND at <= :until",
    "INSERT INTO fires (schedule, at, state, tries, due_at, changed_at, messages, recipients,"
    " error) SELECT name, :until, 'empty', 0, :until, :now, 0, 0, 'the journal was restored'"
    " FROM schedules WHERE looked_at < :until ON CONFLICT (schedule, at) DO NOTHING",
    "UPDATE schedules SET looked_at = :until WHERE looked_at < :until",
)


class Restoring:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._count = sa.text(f"SELECT count(*) FROM recipients WHERE {_DOUBTFUL}")
        self._move = sa.text(
            "UPDATE recipients SET state = 'uncertain', error_class = :error_class,"
            " seq = seq + 1, token = token + 1, lease_id = NULL, suspect = false, deaths = 0,"
            " changed_at = :now WHERE id IN (SELECT id FROM recipients"
            f" WHERE {_DOUBTFUL} AND id > :last ORDER BY id LIMIT {CHUNK})"
            " RETURNING id, message_id, seq"
        )
        self._events = Inserting(database, "events", EVENT)

    def count(self, connection: sa.Connection, until: int) -> int:
        """How many are in doubt. ``until`` (ms): what is due later was not yet to be sent."""
        return int(connection.execute(self._count, {"until": until}).scalar_one())

    def doubt(self, connection: sa.Connection, until: int, last: int, act: Act) -> tuple[int, int]:
        """Make the next ones after ``last`` uncertain; gives how many, and the last of them."""
        now = self._database.now()
        said = {"error_class": RESTORED, "now": now, "until": until, "last": last}
        found = connection.execute(self._move, said).all()
        note = json.dumps({"by": act.who, "verb": act.verb, "reason": act.reason})
        state = State.UNCERTAIN.value
        rows = [(r.message_id, r.id, r.seq, state, now, note) for r in found]
        self._events.write(connection, rows)
        if rows:
            audit(connection, act, len(rows), now)
        return len(rows), max((r.id for r in found), default=last)

    def finish(self, connection: sa.Connection, until: int) -> None:
        """Forget who worked with the lost journal, and let workers trust this one.

        Schedules go on after ``until``: what they fired before, and what its sources told,
        has gone out as far as anybody knows.
        """
        for table in ("leases", "connections", "places", "digests"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
        said = {"until": until, "now": self._database.now()}
        for statement in _SCHEDULES_GO_ON:
            connection.execute(sa.text(statement), said)
        history.begin_anew(connection)
