"""Closing digests: the items of one become a mail, in one transaction.

Owns what is read of a digest that is due, and the writing by which its items end as
``digested`` and its mail begins. Both stand in one transaction with the deletion of the
digest's row, under that row's lock: an item is in one mail, whatever is killed. Never
decides which items are shown (``operations.digests``), and never renders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mailgate.journal.arrivals import MESSAGE, RECIPIENT, UNTRIED
from mailgate.journal.database import Database, packed
from mailgate.journal.gathering import Gathering
from mailgate.journal.inserting import Inserting
from mailgate.journal.letters import read_letter
from mailgate.journal.settling import Settling
from mailgate.journal.suppressions import Stop, Suppressions, Wanted
from mailgate.journal.telling import EVENT
from mailgate.journal.throttle import Charge, Throttles
from mailgate.model.address import Address
from mailgate.model.ids import spell
from mailgate.model.message import Letter
from mailgate.model.state import Lane


@dataclass(frozen=True, slots=True)
class Open:
    """A digest that gathers."""

    id: int
    slot: str
    name: str
    producer: str
    key: str
    throttled: bool
    opened_at: int
    due_at: int
    items: int


@dataclass(frozen=True, slots=True)
class Item:
    """One gathered recipient, as far as it takes to choose."""

    recipient_id: int
    message_id: int
    name: str | None
    expires_at: int | None
    sensitive: bool


@dataclass(frozen=True, slots=True)
class Content:
    """What an item says, and what its message is."""

    recipient_id: int
    message_id: int
    kind: str
    email: str
    name: str
    own: Mapping[str, Any]
    bucket_id: int
    body: Mapping[str, Any]
    stream: str
    sender: str
    template: str | None
    tags: str | None
    throttle: str | None
    accepted_at: int
    producer: str
    charged: bool = False

    @property
    def letter(self) -> Letter:
        """The mail that it would be alone, without its files."""
        return read_letter(
            self.body,
            message_id=self.message_id,
            recipient_id=self.recipient_id,
            date=self.accepted_at,
            kind=self.kind,
            address=Address(self.email, self.name),
            own=self.own,
        )

    @property
    def data(self) -> dict[str, Any]:
        """The data that it would be rendered with alone."""
        return {**(self.body.get("data") or {}), **(self.own.get("data") or {})}

    @property
    def locale(self) -> str | None:
        return self.own.get("locale") or self.body.get("locale")


@dataclass(frozen=True, slots=True)
class Mail:
    """What a digest became. ``body`` is the letter's text (``journal.letters``)."""

    content: Content
    template: str
    body: str
    metadata: str
    throttle: str
    expires_at: int | None
    sensitive: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """How one digest ended: what is shown or counted, and what is left out of it."""

    digest: Open
    mail: Mail | None
    digested: Sequence[Item] = ()
    expired: Sequence[Item] = ()
    suppressed: Sequence[Item] = ()
    stop: Stop | None = None
    charges: Sequence[Charge] = ()


class Digests:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._settling = Settling(database)
        self._suppressions = Suppressions(database)
        self._throttles = Throttles(database)
        self.gathering = Gathering(database)
        named = database.rows({"id": "bigint"})
        ids = f"(SELECT id FROM {named})"
        columns = "id, slot, name, producer, key, throttled, opened_at, due_at, items"
        self._due = sa.text(
            f"SELECT {columns} FROM digests WHERE due_at <= :now ORDER BY due_at, id LIMIT :most"
        )
        lock = "" if database.sqlite else " FOR UPDATE SKIP LOCKED"
        self._lock = sa.text(
            f"SELECT {columns} FROM digests WHERE id IN {ids} AND due_at <= :now ORDER BY id" + lock
        )
        # Whoever cancels one in this moment waits for us, or we for them.
        lock = "" if database.sqlite else " FOR UPDATE OF r"
        items = (
            "SELECT i.digest_id, r.id, r.message_id, i.item, r.expires_at, m.sensitive"
            " FROM digest_items i"
            " JOIN recipients r ON r.id = i.recipient_id"
            f" {database.join('messages', 'm', 'id', 'r.message_id')}"
            f" WHERE i.digest_id IN {ids} AND r.state = 'gathering' ORDER BY r.id"
        )
        self._items, self._look = sa.text(items + lock), sa.text(items)
        self._contents = sa.text(
            "SELECT r.id, r.message_id, r.kind, r.email, r.name, r.own, r.bucket_id, m.body,"
            " m.stream, m.sender, m.template, m.tags, m.throttle, m.accepted_at, m.producer"
            f" FROM recipients r {database.join('messages', 'm', 'id', 'r.message_id')}"
            f" WHERE {database.among('r.id', named)}"
        )
        row = {"id": "bigint", "state": "text", "error_class": "text"}
        self._move = sa.text(
            "UPDATE recipients SET state = v.state, error_class = v.error_class,"
            " seq = recipients.seq + 1, token = recipients.token + 1, changed_at = :now"
            f" FROM {database.rows(row)} WHERE recipients.id = v.id"
            " AND recipients.state = 'gathering' RETURNING recipients.id, recipients.seq"
        )
        self._taken = sa.text(f"SELECT id FROM messages WHERE id IN {ids}")
        self._put_off = sa.text(
            f"UPDATE digests SET due_at = v.due_at"
            f" FROM {database.rows({'id': 'bigint', 'due_at': 'bigint'})} WHERE digests.id = v.id"
        )
        self._delete = sa.text(f"DELETE FROM digests WHERE id IN {ids}")
        self._lanes = sa.text(f"SELECT DISTINCT lane FROM buckets WHERE id IN {ids}")
        self._messages = Inserting(database, "messages", MESSAGE)
        constants = {k: v for k, v in UNTRIED.items() if k != "charged"}
        self._recipients = Inserting(
            database, "recipients", {**RECIPIENT, "charged": "boolean"}, constants=constants
        )
        self._events = Inserting(database, "events", EVENT)

    # --- looking -----------------------------------------------------------------------

    def due(self, connection: sa.Connection, now: int, most: int) -> list[Open]:
        """The digests whose time has come; one entry of an index when there are none."""
        return [_open(row) for row in connection.execute(self._due, {"now": now, "most": most})]

    def items(
        self, connection: sa.Connection, digests: Sequence[int], *, hold: bool = True
    ) -> dict[int, list[Item]]:
        """What of each digest still waits, the oldest first; without ``hold`` only a look."""
        statement = self._items if hold else self._look
        rows = packed([(i,) for i in sorted(digests)])
        out: dict[int, list[Item]] = {i: [] for i in digests}
        for digest, id_, message_id, name, expires_at, sensitive in connection.execute(
            statement, {"rows": rows}
        ):
            out[digest].append(Item(id_, message_id, name, expires_at, bool(sensitive)))
        return out

    def contents(self, connection: sa.Connection, ids: Sequence[int]) -> dict[int, Content]:
        """What these recipients' items say."""
        found = connection.execute(self._contents, {"rows": packed([(i,) for i in ids])})
        return {row[0]: _content(row) for row in found}

    # --- closing, in one transaction -----------------------------------------------------

    def lock(
        self, connection: sa.Connection, wanted: Mapping[int, Sequence[Charge]], now: int
    ) -> list[Open]:
        """Those of ``wanted`` that are ours to close until the transaction ends.

        Each has the throttle charges of its mail. Where a throttle has no room the digest
        is put off until it has.
        """
        charged = [(i, charges) for i, charges in wanted.items() if charges]
        # Before the rows, as in the take, which adds to digests under the throttles' locks.
        _, waits = self._throttles.decide(connection, charged, now)
        rows = packed([(i,) for i in sorted(wanted)])
        mine = [_open(r) for r in connection.execute(self._lock, {"rows": rows, "now": now})]
        later = [(d.id, max(waits[d.id].due_at, now + 1)) for d in mine if d.id in waits]
        if later:
            connection.execute(self._put_off, {"rows": packed(later)})
        return [d for d in mine if d.id not in waits]

    def stops(
        self, connection: sa.Connection, wanted: Mapping[int, tuple[Content, str]], now: int
    ) -> dict[int, Stop]:
        """Why no mail may go to whom a digest is for, by digest.

        ``wanted`` has what it goes by, and the category of that one's stream.
        """
        people = [
            Wanted(digest, content.email.casefold(), content.producer, category)
            for digest, (content, category) in wanted.items()
        ]
        return self._suppressions.look(connection, people, now)

    def close(
        self,
        connection: sa.Connection,
        closing: Sequence[Closed],
        now: int,
        draw: Callable[[], int],
    ) -> frozenset[Lane]:
        """Write how locked digests ended; gives the lanes in which mail now waits."""
        if not closing:
            return frozenset()
        numbers = self._numbers(connection, [c.digest.id for c in closing], draw)
        moves: list[tuple[int, str, str | None]] = []
        notes: dict[int, tuple[int, str, str | None]] = {}
        messages: list[tuple[object, ...]] = []
        people: list[tuple[object, ...]] = []
        charges: list[tuple[int, Sequence[Charge]]] = []
        events: list[tuple[object, ...]] = []
        for one in closing:
            number = numbers[one.digest.id]
            said = json.dumps({"digest": spell(number)}, separators=(",", ":"))
            why = json.dumps(one.stop.note) if one.stop else None
            for items, state, error_class, note in (
                (one.digested, "digested", None, said),
                (one.expired, "expired", "expired", None),
                (one.suppressed, "suppressed", "suppressed", why),
            ):
                moves += [(i.recipient_id, state, error_class) for i in items]
                notes |= {i.recipient_id: (i.message_id, state, note) for i in items}
            if one.mail is not None:
                recipient_id = draw()
                message, person = _rows(number, recipient_id, one, one.mail, now)
                messages.append(message)
                people.append(person)
                if one.charges:
                    charges.append((recipient_id, one.charges))
                events.append((number, None, 0, "accepted", now, None))
        found = connection.execute(self._move, {"rows": packed(sorted(moves)), "now": now})
        for id_, seq in found.all():
            message_id, state, note = notes[id_]
            events.append((message_id, id_, seq, state, now, note))
        self._messages.write(connection, messages)
        self._recipients.write(connection, people)
        self._throttles.charge(connection, charges, now)
        self._events.write(connection, events)
        ids = packed([(c.digest.id,) for c in closing])
        connection.execute(self._delete, {"rows": ids})
        over = {i.message_id for c in closing for i in c.digested if i.sensitive}
        self._settling.redact(connection, over)
        buckets = sorted({c.mail.content.bucket_id for c in closing if c.mail is not None})
        rows = packed([(b,) for b in buckets])
        return frozenset(Lane(x) for x in connection.execute(self._lanes, {"rows": rows}).scalars())

    def _numbers(
        self, connection: sa.Connection, ids: Sequence[int], draw: Callable[[], int]
    ) -> dict[int, int]:
        """The message of each digest: its own number, but for one that a message drew too."""
        taken = connection.execute(self._taken, {"rows": packed([(i,) for i in ids])}).scalars()
        numbers = dict(zip(ids, ids, strict=True))
        for id_ in taken.all():
            numbers[id_] = draw()
            connection.execute(
                sa.text("UPDATE digest_items SET digest_id = :new WHERE digest_id = :old"),
                {"old": id_, "new": numbers[id_]},
            )
        return numbers


def _open(row: Any) -> Open:
    id_, slot, name, producer, key, throttled, *more = row
    return Open(id_, slot, name, producer, key, bool(throttled), *more)


def _content(row: Any) -> Content:
    id_, message_id, kind, email, name, own, bucket, body, *more = row
    said = json.loads(own) if own else {}
    return Content(id_, message_id, kind, email, name, said, bucket, json.loads(body), *more)


def _rows(
    number: int, person: int, one: Closed, mail: Mail, now: int
) -> tuple[tuple[object, ...], tuple[object, ...]]:
    c = mail.content
    charged = bool(one.charges)
    message: dict[str, object] = {
        "id": number,
        "producer": one.digest.producer,
        "identity": f"digest:{spell(number)}",
        # No body has this hash: nobody publishes a digest.
        "body_hash": "digest",
        "stream": c.stream,
        "sender": c.sender,
        "template": mail.template,
        "accepted_at": now,
        "expires_at": mail.expires_at,
        "recipients": 1,
        "sensitive": mail.sensitive,
        "metadata": mail.metadata,
        "throttle": mail.throttle,
        "body": mail.body,
    }
    recipient: dict[str, object] = {
        "id": person,
        "message_id": number,
        "n": 0,
        "kind": "own",
        "email": c.email,
        "name": c.name,
        "bucket_id": c.bucket_id,
        "due_at": now,
        "expires_at": mail.expires_at,
        "changed_at": now,
        "charged": charged,
    }
    columns = (*RECIPIENT, "charged")
    return tuple(message.get(k) for k in MESSAGE), tuple(recipient.get(k) for k in columns)
