"""Writing what came in: messages with their recipients, and what was parked.

Owns the one transaction in which a batch of deliveries becomes rows, and the
rules by which a repeated delivery is known: absorbed, or a visible conflict.
Never decides whether a delivery is good: ``intake.accept`` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mailgate import failpoints
from mailgate.journal.buckets import BucketKey as BucketKey
from mailgate.journal.buckets import ensure_buckets
from mailgate.journal.database import Database, packed
from mailgate.journal.gathering import Gather, Gathering
from mailgate.journal.inserting import Inserting
from mailgate.journal.orders import Order, Orders
from mailgate.journal.rescheduling import PLACE
from mailgate.journal.suppressions import Stop, Suppressions, Wanted
from mailgate.journal.tables import attachments, messages, parked
from mailgate.journal.telling import EVENT
from mailgate.model.ids import Ids, spell
from mailgate.model.message import Attachment
from mailgate.model.state import Lane
from mailgate.model.value import Value, replace

#: How often ids are drawn for a batch: two long runs of them overlap more than once.
_DRAWS = 5


class NewRecipient(Value, frozen=True):
    kind: str
    email: str
    name: str
    bucket: BucketKey
    own: str | None = None
    #: It is not sent by itself, but goes into a digest.
    gather: Gather | None = None


class NewParked(Value, frozen=True):
    """Raw bytes that did not become a message, or not wholly; ``faults`` is JSON text."""

    identity: str
    source: str
    kind: str
    faults: str
    body: bytes
    producer: str | None = None
    #: The message that a conflict or a refused recipient belongs to.
    message_id: int | None = None


class Arrival(Value, frozen=True):
    """One accepted submission, ready to be written.

    ``session`` is set for a delivery that has no identity of its own (AMQP
    without ``message_id``) and differs from connection to connection: the row
    remembers it until it is forgotten, and a delivery marked ``redelivered`` is first looked
    for among the rows that do.
    """

    identity: str
    producer: str
    body_hash: str
    source: str
    stream: str
    #: The From address in wire form.
    sender: str
    body: str
    recipients: tuple[NewRecipient, ...]
    raw: bytes
    template: str | None = None
    send_at: int | None = None
    expires_at: int | None = None
    #: Where no ``expires_at`` was said: it expires so long after it may be sent first (ms).
    lifetime: int | None = None
    sensitive: bool = False
    idempotency_key: str | None = None
    #: The producer's own id, when the idempotency key took its place in ``identity``.
    own_id: str | None = None
    tags: str | None = None
    metadata: str | None = None
    traceparent: str | None = None
    throttle: str | None = None
    #: The stream's category, by which a recipient may have unsubscribed.
    category: str = ""
    attachments: tuple[Attachment, ...] = ()
    session: int | None = None
    redelivered: bool = False
    refused: tuple[NewParked, ...] = ()


@dataclass(slots=True)
class Stored:
    """What a batch came to. ``ids`` has the message of each arrival, in order."""

    accepted: int = 0
    repeated: int = 0
    conflicts: int = 0
    parked: int = 0
    #: Orders that were answered.
    orders: int = 0
    #: Recipients that were accepted and are not written to.
    suppressed: int = 0
    lanes: set[Lane] = field(default_factory=set)
    ids: list[int] = field(default_factory=list)
    #: Messages to ``forget`` once the broker has confirmed the acknowledgements.
    unacked: list[int] = field(default_factory=list)


MESSAGE = {
    "id": "bigint",
    "producer": "text",
    "identity": "text",
    "body_hash": "text",
    "stream": "text",
    "sender": "text",
    "template": "text",
    "accepted_at": "bigint",
    "send_at": "bigint",
    "expires_at": "bigint",
    "recipients": "bigint",
    "sensitive": "boolean",
    "idempotency_key": "text",
    "own_id": "text",
    "tags": "text",
    "metadata": "text",
    "traceparent": "text",
    "throttle": "text",
    "body": "text",
    "unacked": "bigint",
}
RECIPIENT = {
    "id": "bigint",
    "message_id": "bigint",
    "n": "bigint",
    "kind": "text",
    "email": "text",
    "name": "text",
    "own": "text",
    "bucket_id": "bigint",
    "due_at": "bigint",
    "expires_at": "bigint",
    "changed_at": "bigint",
}
#: What is true of every recipient at first.
UNTRIED = {
    "state": "'queued'",
    "token": "0",
    "claims": "0",
    "attempts": "0",
    "suspect": "false",
    "deaths": "0",
    "charged": "false",
    "seq": "1",
}
#: What is true of one that is suppressed at once.
_STOPPED = {**UNTRIED, "state": "'suppressed'", "error_class": "'suppressed'"}
#: What is true of one that waits for its digest.
_GATHERING = {**UNTRIED, "state": "'gathering'"}


class Arrivals:
    """Writes batches of arrivals. One a process: it remembers the buckets' numbers."""

    def __init__(self, database: Database, ids: Ids) -> None:
        self._database = database
        self._ids = ids
        self._buckets: dict[BucketKey, int] = {}
        rows = database.rows
        self._messages = Inserting(
            database, "messages", MESSAGE, tail="ON CONFLICT (producer, identity) DO NOTHING"
        )
        self._recipients = Inserting(database, "recipients", RECIPIENT, constants=UNTRIED)
        self._stopped = Inserting(database, "recipients", RECIPIENT, constants=_STOPPED)
        self._gathered = Inserting(database, "recipients", RECIPIENT, constants=_GATHERING)
        self._gathering = Gathering(database)
        self._suppressions = Suppressions(database)
        self._orders = Orders(database, ids)
        self._events = Inserting(database, "events", EVENT)
        self._forget = sa.text(
            "UPDATE messages SET unacked = NULL WHERE id IN (SELECT id FROM "
            + rows({"id": "bigint"})
            + ")"
        )
        self._find = sa.text(
            "SELECT m.id, m.producer, m.identity, m.body_hash FROM messages m JOIN "
            + rows({"producer": "text", "identity": "text"})
            + " ON m.producer = v.producer AND m.identity = v.identity"
        )

    async def store(
        self,
        batch: Sequence[Arrival],
        refused: Sequence[NewParked] = (),
        forget: Sequence[int] = (),
        orders: Sequence[Order] = (),
    ) -> Stored:
        """Write a batch in one transaction; raises ``JournalAway`` with nothing written.

        ``orders`` are carried out when all its messages are there. ``forget`` are messages
        of earlier batches (``Stored.unacked``) that the broker will not deliver again.
        """
        keys = {r.bucket for a in batch for r in a.recipients} - self._buckets.keys()
        if keys:
            self._buckets.update(await self._database.run(lambda c: ensure_buckets(c, keys)))
        work = self._writing(batch, refused, forget, orders)
        for _ in range(_DRAWS - 1):
            try:
                return await self._database.run(work)
            except IntegrityError:
                # Another process drew one of our ids in the same millisecond: draw again.
                continue
        return await self._database.run(work)

    def store_now(
        self, batch: Sequence[Arrival], *, only_if: Callable[[sa.Connection], bool]
    ) -> Stored | None:
        """``store`` for the thread one is in, in the transaction of ``only_if``.

        None, with nothing written, when that says no. Raises ``JournalAway``.
        """
        keys = {r.bucket for a in batch for r in a.recipients} - self._buckets.keys()
        if keys:
            self._buckets.update(self._database.run_now(lambda c: ensure_buckets(c, keys)))
        write = self._writing(batch, (), (), ())

        def work(connection: sa.Connection) -> Stored | None:
            return write(connection) if only_if(connection) else None

        for _ in range(_DRAWS - 1):
            try:
                return self._database.run_now(work)
            except IntegrityError:
                continue
        return self._database.run_now(work)

    def _writing(
        self,
        batch: Sequence[Arrival],
        refused: Sequence[NewParked],
        forget: Sequence[int],
        orders: Sequence[Order],
    ) -> Callable[[sa.Connection], Stored]:
        def work(connection: sa.Connection) -> Stored:
            now = self._database.now()
            stored = Stored()
            failpoints.hit("intake.validated")
            if forget:
                rows = packed([(i,) for i in forget])
                connection.execute(self._forget, {"rows": rows})
            again = _already_here(connection, batch, now)
            fresh = [a for i, a in enumerate(batch) if i not in again]
            ids = [self._ids.take(now) for _ in fresh]
            parking = list(refused)
            pairs = drawn = list(zip(ids, fresh, strict=True))
            new = self._messages.write(connection, [_message_row(i, a, now) for i, a in pairs])
            written = dict(pairs)
            known: dict[tuple[str, str], tuple[int, str]] = {}
            if new < len(fresh):
                # Whose identity was there before: those that now stand under another id.
                wanted = [(a.producer, a.identity) for a in fresh]
                for row in connection.execute(self._find, {"rows": packed(wanted)}):
                    known[row.producer, row.identity] = (row.id, row.body_hash)
                pairs = self._placed(connection, pairs, known, now)
                written = {i: a for i, a in pairs if known[a.producer, a.identity][0] == i}
            events: list[tuple[object, ...]] = []
            if written:
                events += [(i, None, 0, "accepted", now, None) for i in written]
                events += self._write_recipients(connection, written, now, stored)
                placed = set(written) - {i for i, _ in drawn}
                named = [(i, a.producer, a.own_id) for i, a in written.items() if a.own_id]
                placed.update(self._orders.move(connection, named))
                if placed:
                    # Events before those of the orders that it meets.
                    self._events.write(connection, events)
                    events = []
                    stored.lanes |= self._orders.meet(connection, sorted(placed), now)
            stored.unacked = [*again.values(), *(i for i, a in written.items() if a.session)]
            numbers = iter(pairs)
            for index, arrival in enumerate(batch):
                if index in again:
                    stored.repeated += 1
                    stored.ids.append(again[index])
                    continue
                id_, _ = next(numbers)
                if id_ in written:
                    stored.accepted += 1
                    stored.ids.append(id_)
                    parking += [replace(p, message_id=id_) for p in arrival.refused]
                    continue
                first, body_hash = known[arrival.producer, arrival.identity]
                stored.ids.append(first)
                if body_hash == arrival.body_hash:
                    stored.repeated += 1
                    if arrival.session:
                        # Our own earlier try, whose COMMIT was not answered.
                        stored.unacked.append(first)
                else:
                    stored.conflicts += 1
                    parking.append(_conflict(arrival, first))
            if parking:
                put = _park(connection, parking, self._ids, now)
                stored.parked += len(put)
                events += [_parked_event(number, row, now) for number, row in put]
            self._events.write(connection, events)
            if orders:
                self._obey(connection, orders, now, stored)
            failpoints.hit("intake.before_commit")
            return stored

        return work

    def _placed(
        self,
        connection: sa.Connection,
        pairs: list[tuple[int, Arrival]],
        known: dict[tuple[str, str], tuple[int, str]],
        now: int,
    ) -> list[tuple[int, Arrival]]:
        """Write messages into the places that orders have left for them; also in ``known``."""
        out = []
        for id_, arrival in pairs:
            key = arrival.producer, arrival.identity
            place, body_hash = known[key]
            if body_hash == PLACE:
                values = dict(zip(MESSAGE, _message_row(place, arrival, now), strict=True))
                at = messages.c.id == place, messages.c.body_hash == PLACE
                taken = connection.execute(messages.update().where(*at).values(values)).rowcount
                if not taken:  # another process was quicker
                    row = connection.execute(
                        sa.select(messages.c.body_hash).where(messages.c.id == place)
                    ).one()
                    known[key] = place, row.body_hash
                else:
                    known[key] = place, arrival.body_hash
                    id_ = place
            out.append((id_, arrival))
        return out

    def _obey(
        self, connection: sa.Connection, orders: Sequence[Order], now: int, stored: Stored
    ) -> None:
        carried = self._orders.carry_out(connection, orders, now)
        stored.orders += carried.answered
        stored.repeated += carried.repeated
        stored.lanes |= carried.lanes
        stored.conflicts += len(carried.conflicts)
        parking = [_conflict(order, about) for order, about in carried.conflicts]
        put = _park(connection, parking, self._ids, now)
        stored.parked += len(put)
        self._events.write(connection, [_parked_event(number, row, now) for number, row in put])

    def _write_recipients(
        self, connection: sa.Connection, written: dict[int, Arrival], now: int, stored: Stored
    ) -> list[tuple[object, ...]]:
        """Queue the recipients, but for those that are suppressed; gives the events of these."""
        rows = []
        stopped = []
        gathered = []
        gathers = []
        events: list[tuple[object, ...]] = []
        files = []
        stops = self._stops(connection, written, now)
        place = 0
        for message_id, arrival in written.items():
            due = arrival.send_at if arrival.send_at is not None else now
            for n, r in enumerate(arrival.recipients):
                row = (
                    self._ids.take(now),
                    message_id,
                    n,
                    r.kind,
                    r.email,
                    r.name,
                    r.own,
                    self._buckets[r.bucket],
                    due,
                    _expires_at(arrival, now),
                    now,
                )
                stop = stops.get(place)
                place += 1
                if stop is not None:
                    stopped.append(row)
                    note = json.dumps(stop.note)
                    events.append((message_id, row[0], 1, "suppressed", now, note))
                    continue
                if r.gather is not None:
                    gathered.append(row)
                    gathers.append((row[0], r.gather))
                    continue
                rows.append(row)
                if due <= now:
                    stored.lanes.add(r.bucket.lane)
            for n, file in enumerate(arrival.attachments):
                files.append(
                    {
                        "message_id": message_id,
                        "n": n,
                        "filename": file.filename,
                        "content_type": file.content_type,
                        "content_id": file.content_id,
                        "content": file.content,
                    }
                )
        self._recipients.write(connection, rows)
        self._stopped.write(connection, stopped)
        self._gathered.write(connection, gathered)
        self._gathering.add(connection, gathers, now, lambda: self._ids.take(now))
        stored.suppressed += len(stopped)
        if files:
            connection.execute(attachments.insert(), files)
        return events

    def _stops(
        self, connection: sa.Connection, written: Mapping[int, Arrival], now: int
    ) -> dict[int, Stop]:
        """The recipients that an entry stops, by their place among all of ``written``."""
        everyone = ((a, r) for a in written.values() for r in a.recipients)
        wanted = [
            Wanted(place, r.email.casefold(), a.producer, a.category)
            for place, (a, r) in enumerate(everyone)
        ]
        return self._suppressions.look(connection, wanted, now)


_TRIED_BEFORE = sa.text(
    "SELECT id FROM messages WHERE producer = :producer AND identity = :identity"
    " AND body_hash = :hash"
)
_UNACKED = sa.text(
    "SELECT id FROM messages WHERE unacked IS NOT NULL AND body_hash = :hash"
    " AND producer = :producer AND unacked <> :session AND accepted_at > :since"
    " ORDER BY id LIMIT 1"
)
#: What was not acknowledged comes again within this (milliseconds), also after an outage
#: of days. Later an equal message is a new one.
_COMES_AGAIN = 3 * 86_400_000
_FOUND = sa.text("UPDATE messages SET unacked = :session, identity = :identity WHERE id = :id")


def _already_here(connection: sa.Connection, batch: Sequence[Arrival], now: int) -> dict[int, int]:
    """Redelivered messages without an identity whose first delivery did commit.

    Each such row stands for one delivery: two equal messages, both redelivered,
    find two rows. A row is marked with the session that found it, so that it is
    found once a session, and again should this session die too. It takes the
    delivery's identity as well: a batch whose COMMIT went unanswered is tried
    again, and must find the same rows.
    """
    again: dict[int, int] = {}
    for index, arrival in enumerate(batch):
        if not (arrival.redelivered and arrival.session):
            continue
        values = {
            "hash": arrival.body_hash,
            "producer": arrival.producer,
            "session": arrival.session,
            "identity": arrival.identity,
            "since": now - _COMES_AGAIN,
        }
        found = connection.execute(_TRIED_BEFORE, values).scalar()
        if found is None:
            found = connection.execute(_UNACKED, values).scalar()
            if found is not None:
                connection.execute(_FOUND, {**values, "id": found})
        if found is not None:
            again[index] = int(found)
    return again


def _message_row(id_: int, a: Arrival, now: int) -> tuple[object, ...]:
    return (
        id_,
        a.producer,
        a.identity,
        a.body_hash,
        a.stream,
        a.sender,
        a.template,
        now,
        a.send_at,
        _expires_at(a, now),
        len(a.recipients),
        a.sensitive,
        a.idempotency_key,
        a.own_id,
        a.tags,
        a.metadata,
        a.traceparent,
        a.throttle,
        a.body,
        a.session,
    )


def _expires_at(a: Arrival, now: int) -> int | None:
    if a.expires_at is not None or a.lifetime is None:
        return a.expires_at
    return (now if a.send_at is None else a.send_at) + a.lifetime


def _conflict(arrival: Arrival | Order, first: int | None) -> NewParked:
    rule = "this identity was accepted before with another body"
    field = "idempotency_key" if isinstance(arrival, Arrival) else "id"
    return NewParked(
        # The same conflict again is the same row.
        identity=f"conflict:{arrival.producer}:{arrival.body_hash}:{arrival.identity}"[:400],
        source=arrival.source,
        kind="conflict",
        faults=json.dumps([{"field": field, "rule": rule}]),
        body=arrival.raw,
        producer=arrival.producer,
        message_id=first,
    )


def _park(
    connection: sa.Connection, rows: Sequence[NewParked], ids: Ids, now: int
) -> list[tuple[int, NewParked]]:
    """Write what is parked; gives those rows that are new, each with its number."""
    insert = sa.text(
        "INSERT INTO parked (id, identity, received_at, source, producer, kind, faults, body,"
        " message_id, state) VALUES (:id, :identity, :now, :source, :producer, :kind, :faults,"
        " :body, :message_id, 'parked') ON CONFLICT (identity) DO NOTHING RETURNING id"
    ).bindparams(sa.bindparam("body", type_=parked.c.body.type))
    new: list[tuple[int, NewParked]] = []
    for row in rows:
        values = {
            "id": ids.take(now),
            "now": now,
            "identity": row.identity,
            "source": row.source,
            "producer": row.producer,
            "kind": row.kind,
            "faults": row.faults,
            "body": row.body,
            "message_id": row.message_id,
        }
        number = connection.execute(insert, values).scalar()
        if number is not None:
            new.append((number, row))
    return new


def _parked_event(number: int, row: NewParked, now: int) -> tuple[object, ...]:
    kind = "conflict" if row.kind == "conflict" else "parked"
    return row.message_id or number, None, 0, kind, now, json.dumps({"parked": spell(number)})
