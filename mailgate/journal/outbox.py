"""The outbox: the journal's events as far as they are not published yet, in order.

Owns who publishes (one process at a time, by a lease), how far it has come, and which
events can be read without passing over one that is about to appear. Never talks to a
broker and never builds a document.

The events' own numbers are the order, and one number says how far they are published:
nothing is written for a single event. That is right because

- a recipient's next event is written under the lock of its row, so its number is drawn
  after the one before has committed;
- on SQLite transactions follow each other, numbers and all;
- on PostgreSQL a lower number may become visible after a higher one. The reader stops
  before a number that is missing, and passes over it only when every transaction that
  could still bring it has ended: those that held a lock on the table when it was missed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailgate.journal.database import Database, packed
from mailgate.journal.tables import actions
from mailgate.model.ids import unspell

#: A parked document up to this size is read for what its author calls it.
_SMALL = 2**16
#: Events that are read at a time.
BATCH = 500


class Told(NamedTuple):
    """One event with what its document says of message, recipient and attempt."""

    id: int
    message_id: int
    recipient_id: int | None
    seq: int
    kind: str
    at: int
    #: What the event says of itself.
    detail: Mapping[str, Any]
    #: None for a parked document that names none.
    producer: str | None
    identity: str
    idempotency_key: str | None = None
    own_id: str | None = None
    #: None where there is no message.
    stream: str | None = None
    template: str | None = None
    recipients: int | None = None
    tags: str | None = None
    metadata: str | None = None
    traceparent: str | None = None
    sensitive: bool = False
    n: int | None = None
    email: str | None = None
    #: The recipient's own metadata as JSON.
    own: str | None = None
    enhanced: str = ""
    reply: str = ""
    #: Of a document that was parked: its faults as JSON, and its bytes when they are few.
    faults: str | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is not published yet: how many, and since when the oldest waits (ms)."""

    count: int
    oldest: int | None
    #: Producers whose events their broker refuses, while those of others go out.
    refused: tuple[str, ...] = ()

    def age(self, now: int) -> float:
        """How long the oldest has been waiting, in seconds."""
        return 0.0 if self.oldest is None else max(0, now - self.oldest) / 1000


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Numbers below ``upto`` that were missing while ``writers`` were at work."""

    upto: int
    writers: frozenset[str]


class Outbox:
    """The journal's outbox as one publisher sees it. ``me`` tells publishers apart."""

    def __init__(self, database: Database, me: int) -> None:
        self._database = database
        self._me = me
        self._doubt: _Doubt | None = None
        #: Below this number nothing that is missing will come any more.
        self._sure = 0
        own = "CASE WHEN r.own IS NOT NULL THEN {} END"
        if database.sqlite:
            own = own.format("json_extract(r.own, '$.metadata')")
        else:
            own = own.format("r.own::json ->> 'metadata'")
        self._read = (
            "SELECT e.id, e.message_id, e.recipient_id, e.seq, e.kind, e.at, e.detail,"
            " m.producer, m.identity, m.idempotency_key, m.own_id, m.stream, m.template,"
            " m.recipients, m.tags, m.metadata, m.traceparent, m.sensitive,"
            f" r.n, r.email, {own} AS own"
            " FROM events e LEFT JOIN messages m ON m.id = e.message_id"
            " LEFT JOIN recipients r ON r.id = e.recipient_id"
            " WHERE e.id > :after%s ORDER BY e.id LIMIT :most"
        )
        self._all = sa.text(self._read % "")
        self._between = sa.text(self._read % " AND e.id <= :upto")
        self._tried = sa.text(
            "SELECT a.recipient_id, a.n, a.enhanced, a.reply FROM attempts a WHERE"
            f" a.recipient_id IN (SELECT id FROM {database.rows({'id': 'bigint'})})"
        )
        self._aside = sa.text(
            "SELECT id, identity, producer, faults,"
            f" CASE WHEN length(body) <= {_SMALL} THEN body END AS body FROM parked"
            f" WHERE id IN (SELECT id FROM {database.rows({'id': 'bigint'})})"
        )

    # --- who publishes ----------------------------------------------------------------

    def hold(self, connection: sa.Connection, span: int) -> int | None:
        """Take or keep the lease for ``span`` ms; gives how far events are published.

        None while another publishes.
        """
        now = self._database.now()
        found = connection.execute(_HOLD, {"me": self._me, "now": now, "until": now + span})
        reached = found.scalar()
        if reached is None:
            connection.execute(_BEGIN)
            found = connection.execute(_HOLD, {"me": self._me, "now": now, "until": now + span})
            reached = found.scalar()
        return None if reached is None else int(reached)

    def let_go(self, connection: sa.Connection) -> None:
        """Give the lease back, so that another need not wait for its end."""
        connection.execute(_LET_GO, {"me": self._me})

    def advance(
        self,
        connection: sa.Connection,
        before: int,
        reached: int,
        span: int,
        refused: Mapping[str, int] | None = None,
    ) -> bool:
        """What was read after ``before``, up to ``reached``, is published; keeps the lease.

        ``refused`` names producers whose events were not taken, each with the number
        after which theirs wait. False when the lease is another's meanwhile: then nothing
        is written, and the other publishes again what we have.
        """
        now = self._database.now()
        values = {"me": self._me, "before": before, "reached": reached, "until": now + span}
        if connection.execute(_ADVANCE, values).rowcount != 1:
            return False
        for producer, after in (refused or {}).items():
            connection.execute(_REFUSED, {"producer": producer, "reached": after})
        if reached > before:
            connection.execute(_PUBLISHED, {"second": now // 1000, "reached": reached})
        return True

    def set_aside(self, connection: sa.Connection, unfit: Sequence[tuple[int, str, str]]) -> None:
        """Write down events that are not told: number, message and why, among the actions."""
        at = self._database.now()
        connection.execute(
            actions.insert(),
            [
                {
                    "at": at,
                    "who": "mailgate",
                    "verb": "event-aside",
                    "reason": why,
                    "detail": json.dumps({"event": number, "message": message}),
                    "count": 1,
                }
                for number, message, why in unfit
            ],
        )

    # --- producers that stay behind ---------------------------------------------------

    def behind(self, connection: sa.Connection) -> dict[str, int]:
        """The producers whose events were refused, each with how far theirs are published."""
        return {row.producer: row.reached for row in connection.execute(_BEHIND)}

    def catch_up(self, connection: sa.Connection, producer: str, before: int, to: int) -> None:
        """A producer's events up to ``to`` are published as well."""
        values = {"me": self._me, "producer": producer, "before": before, "reached": to}
        connection.execute(_CATCH_UP, values)

    def caught_up(self, connection: sa.Connection, producer: str, before: int, main: int) -> None:
        """Nothing of a producer's waits but what waits of all after ``main``."""
        values = {"me": self._me, "producer": producer, "before": before, "main": main}
        connection.execute(_CAUGHT_UP, values)

    # --- what is to be published -------------------------------------------------------

    def next(self, connection: sa.Connection, after: int, most: int = BATCH) -> list[Told]:
        """The events after a number, in order, up to one that may yet appear before others."""
        self._settle_doubt(connection)
        rows = connection.execute(self._all, {"after": after, "most": most}).all()
        if not self._database.sqlite:
            rows = self._without_gap(connection, after, rows)
        return self._whole(connection, rows)

    def between(
        self, connection: sa.Connection, after: int, upto: int, most: int = BATCH
    ) -> list[Told]:
        """The events after a number, up to another that was reached before."""
        values = {"after": after, "upto": upto, "most": most}
        return self._whole(connection, connection.execute(self._between, values).all())

    def last(self, connection: sa.Connection) -> int:
        """The number of the newest event that can be seen, 0 when there is none."""
        return int(connection.execute(_LAST).scalar() or 0)

    def _without_gap(
        self, connection: sa.Connection, after: int, rows: Sequence[Any]
    ) -> Sequence[Any]:
        wanted = after
        for place, row in enumerate(rows):
            number: int = row[0]
            wanted += 1
            if number != wanted and number > self._sure:
                if self._doubt is None or self._doubt.upto <= wanted:
                    writers = frozenset(connection.execute(_WRITERS).scalars())
                    self._doubt = _Doubt(number, writers)
                return rows[:place]
            wanted = number
        return rows

    def _settle_doubt(self, connection: sa.Connection) -> None:
        """Before reading: who has ended before now has shown everything to what is read next."""
        if self._doubt is None:
            return
        if not self._doubt.writers or not self._doubt.writers.intersection(
            connection.execute(_WRITERS).scalars()
        ):
            self._sure, self._doubt = self._doubt.upto, None

    def _whole(self, connection: sa.Connection, rows: Sequence[Any]) -> list[Told]:
        details = [_said(row[6]) if row[6] else _NOTHING for row in rows]
        tried = {
            (row[2],) for row, detail in zip(rows, details, strict=True) if "attempt" in detail
        }
        said: dict[tuple[int, int], tuple[str, str]] = {}
        if tried:
            found = connection.execute(self._tried, {"rows": packed(sorted(tried))})
            said = {(one[0], one[1]): (one[2], one[3]) for one in found}
        parked = {(unspell(detail["parked"]),) for detail in details if "parked" in detail}
        aside: dict[int, Any] = {}
        if parked:
            found = connection.execute(self._aside, {"rows": packed(sorted(parked))})
            aside = {one.id: one for one in found}
        out = []
        for row, detail in zip(rows, details, strict=True):
            if "parked" in detail:
                out.append(_put_aside(row, detail, aside.get(unspell(detail["parked"]))))
                continue
            enhanced, reply = said.get((row[2], detail.get("attempt", 0)), ("", ""))
            out.append(_told(row, detail, enhanced, reply))
        return out


def _told(row: Any, detail: Mapping[str, Any], enhanced: str = "", reply: str = "") -> Told:
    id_, message_id, recipient_id, seq, kind, at, _, producer, identity, *more = row
    key, own_id, stream, template, recipients, tags, metadata, traceparent, *rest = more
    sensitive, n, email, own = rest
    # By position, in the order of the fields: half the cost of names.
    return Told(
        *(id_, message_id, recipient_id, seq, kind, at, detail),
        # An answer about no message says itself whose it is.
        producer or detail.get("producer"),
        identity or "",
        *(key, own_id, stream, template, recipients, tags, metadata, traceparent),
        bool(sensitive),
        *(n, email, own, enhanced, reply),
    )


def _put_aside(row: Any, detail: Mapping[str, Any], parked: Any) -> Told:
    told = _told(row, detail)
    if parked is None:
        return told
    body = None if parked.body is None else bytes(parked.body)
    if told.identity:
        return told._replace(faults=parked.faults)
    return told._replace(
        producer=parked.producer, identity=parked.identity, faults=parked.faults, body=body
    )


_NOTHING: Mapping[str, Any] = {}


@lru_cache(maxsize=512)
def _said(detail: str) -> Mapping[str, Any]:
    """An event's detail; most are the same."""
    found: Mapping[str, Any] = json.loads(detail)
    return found


_BEGIN = sa.text(
    "INSERT INTO outbox (producer, reached, holder, until) VALUES ('', 0, 0, 0)"
    " ON CONFLICT (producer) DO NOTHING"
)
_HOLD = sa.text(
    "UPDATE outbox SET holder = :me, until = :until"
    " WHERE producer = '' AND (holder = :me OR until < :now) RETURNING reached"
)
_UNTIL = sa.text("SELECT until FROM outbox WHERE producer = ''")
_LET_GO = sa.text("UPDATE outbox SET until = 0 WHERE producer = '' AND holder = :me")
_ADVANCE = sa.text(
    "UPDATE outbox SET reached = :reached, until = :until"
    " WHERE producer = '' AND holder = :me AND reached = :before"
)
_PUBLISHED = sa.text(
    "INSERT INTO published (second, reached) VALUES (:second, :reached)"
    " ON CONFLICT (second) DO UPDATE SET reached = excluded.reached"
)
_REFUSED = sa.text(
    "INSERT INTO outbox (producer, reached, holder, until) VALUES (:producer, :reached, 0, 0)"
    " ON CONFLICT (producer) DO NOTHING"
)
_BEHIND = sa.text("SELECT producer, reached FROM outbox WHERE producer <> ''")
#: Whoever has lost the lease must not undo what its heir has written.
_MINE = "EXISTS (SELECT 1 FROM outbox o WHERE o.producer = '' AND o.holder = :me%s)"
_CATCH_UP = sa.text(
    "UPDATE outbox SET reached = :reached WHERE producer = :producer AND reached = :before"
    " AND " + _MINE % ""
)
_CAUGHT_UP = sa.text(
    "DELETE FROM outbox WHERE producer = :producer AND reached = :before"
    " AND " + _MINE % " AND o.reached = :main"
)
_LAST = sa.text("SELECT max(id) FROM events")
#: Whoever may still bring a number: a row is written under this lock, held to the end.
_WRITERS = sa.text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND relation = 'events'::regclass AND mode = 'RowExclusiveLock'"
)
_REACHED = sa.text("SELECT reached FROM outbox WHERE producer = ''")
_OLDEST = sa.text("SELECT at FROM events WHERE id > :reached ORDER BY id LIMIT 1")


def free(connection: sa.Connection, now: int) -> bool:
    """Whether nobody publishes."""
    until = connection.execute(_UNTIL).scalar()
    return until is None or int(until) < now


def waiting(connection: sa.Connection) -> Waiting:
    """What is not published yet; the count is of numbers, some of which may be void."""
    reached = int(connection.execute(_REACHED).scalar() or 0)
    last = int(connection.execute(_LAST).scalar() or 0)
    oldest = connection.execute(_OLDEST, {"reached": reached}).scalar()
    refused = tuple(sorted(row.producer for row in connection.execute(_BEHIND)))
    return Waiting(max(0, last - reached) if oldest is not None else 0, oldest, refused)


#: In the place of a time: it waits still.
NOT_YET = -1
_WHEN = sa.text(
    "SELECT second FROM published WHERE second >= :since AND reached >= :event"
    " ORDER BY second LIMIT 1"
)


def published_at(
    connection: sa.Connection, producer: str, events: Sequence[tuple[int, int]]
) -> dict[int, int | None]:
    """When each of a producer's events (number, time) was published, to the second (ms).

    ``NOT_YET`` while it waits; None when it was, and it is forgotten when.
    """
    reached = int(connection.execute(_REACHED).scalar() or 0)
    behind = {row.producer: row.reached for row in connection.execute(_BEHIND)}
    reached = min(reached, behind.get(producer, reached))
    out: dict[int, int | None] = {}
    for number, at in events:
        if number > reached:
            out[number] = NOT_YET
            continue
        values = {"since": at // 1000 - 1, "event": number}
        second = connection.execute(_WHEN, values).scalar()
        out[number] = None if second is None else int(second) * 1000
    return out
