"""Orders of producers about messages of their own: cancel, reschedule, ask; and the answers.

Owns which message is meant, the order that comes before its message, and the one
``state`` event by which each order is answered. All of it happens in the transaction of
the batch that the order came with. Never decides who may ask: ``intake`` does.

An order that names no message leaves a *place* for one: a row of ``messages`` without
recipients, under the identity that the message would have. The unique index then does what
no look-up could: whichever of the two is written first, the other one finds it. A message
that finds its place taken by orders alone is written there, and meets them at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from mailgate.journal.database import Database
from mailgate.journal.rescheduling import AWAY, MESSAGE, PLACE, Rescheduling, When
from mailgate.journal.surgery import Act, Surgery
from mailgate.journal.tables import messages, orders
from mailgate.journal.telling import tell
from mailgate.model.ids import Ids, spell, unspell
from mailgate.model.state import FINAL, Lane, State
from mailgate.model.value import Value

#: In the words of its index: SQLite uses a partial one for no others.
_WAITING = sa.text("waiting")
#: How long an order waits for its message (ms): brokers keep no order between queues and
#: processes, and a producer that was unsure publishes again.
EARLY = 86_400_000


class Order(Value, frozen=True):
    """One order, ready to be carried out.

    ``identity`` is what makes a repeat the same order, ``target`` what names the message.
    """

    verb: str
    producer: str
    identity: str
    body_hash: str
    source: str
    raw: bytes
    #: ``id`` or ``idempotency_key``.
    by: str
    target: str
    #: The order's own id, if it has one.
    own_id: str | None = None
    recipient: str | None = None
    reason: str = ""
    #: Of ``reschedule``.
    when: When | None = None


@dataclass(slots=True)
class Carried:
    """What the orders of a batch came to."""

    answered: int = 0
    repeated: int = 0
    #: Orders with the identity of another order, and the message that one was about.
    conflicts: list[tuple[Order, int | None]] = field(default_factory=list)
    lanes: set[Lane] = field(default_factory=set)


class Orders:
    def __init__(self, database: Database, ids: Ids) -> None:
        self._database = database
        self._ids = ids
        self._surgery = Surgery(database)
        self._rescheduling = Rescheduling(database)
        self._lock = self._rescheduling.lock

    def carry_out(self, connection: sa.Connection, batch: Sequence[Order], now: int) -> Carried:
        """Carry out a batch in its order, and answer each; those repeated are absorbed."""
        carried = Carried()
        for order in batch:
            number = None
            if order.verb != "ask":  # who asks twice is answered twice
                number = self._noted(connection, order, now, carried)
                if number is None:
                    continue
            self._carry_out(connection, order, number, now, carried)
        return carried

    def move(self, connection: sa.Connection, own_ids: Sequence[tuple[int, str, str]]) -> list[int]:
        """Let orders that wait under the own id of a message wait for it instead.

        ``own_ids`` are messages that have a key beside it, as (message, producer, id);
        gives those for which there were orders.
        """
        found = []
        for message_id, producer, own_id in own_ids:
            place = sa.select(messages.c.id).where(
                messages.c.producer == producer,
                messages.c.identity == f"key:{own_id}",
                messages.c.body_hash == PLACE,
            )
            moved = connection.execute(
                orders.update()
                .where(orders.c.message_id.in_(place), _WAITING)
                .values(message_id=message_id)
            )
            if moved.rowcount:
                found.append(message_id)
        return found

    def meet(
        self, connection: sa.Connection, message_ids: Sequence[int], now: int
    ) -> frozenset[Lane]:
        """Carry out the orders that waited for these messages; gives the lanes to ring."""
        carried = Carried()
        query = sa.select(orders).where(orders.c.message_id.in_(message_ids), _WAITING)
        for row in connection.execute(query.order_by(orders.c.id)).all():
            if row.at >= now - EARLY:
                said = json.loads(row.said)
                when = said.pop("when")
                when = When(**when) if when else None
                order = Order(raw=b"", when=when, **said)
                self._carry_out(connection, order, row.id, now, carried)
        return frozenset(carried.lanes)

    # --- one order -----------------------------------------------------------------------

    def _noted(
        self, connection: sa.Connection, order: Order, now: int, carried: Carried
    ) -> int | None:
        """The order's row, or None when it is a repeat."""
        number = self._ids.take(now)
        made = connection.execute(
            sa.text(
                "INSERT INTO orders (id, producer, identity, body_hash, at, waiting)"
                " VALUES (:id, :producer, :identity, :hash, :now, false)"
                " ON CONFLICT (producer, identity) DO NOTHING"
            ),
            {
                "id": number,
                "producer": order.producer,
                "identity": order.identity,
                "hash": order.body_hash,
                "now": now,
            },
        )
        if made.rowcount == 1:
            return number
        first = connection.execute(
            sa.select(orders.c.body_hash, orders.c.message_id).where(
                orders.c.producer == order.producer, orders.c.identity == order.identity
            )
        ).one()
        if first.body_hash == order.body_hash:
            carried.repeated += 1
        else:
            carried.conflicts.append((order, first.message_id))
        return None

    def _carry_out(
        self,
        connection: sa.Connection,
        order: Order,
        number: int | None,
        now: int,
        carried: Carried,
    ) -> None:
        """Do what one order asks, and answer it; ``number`` is its row's, unless it only asks."""
        found = self._meant(connection, order)
        if found is None and number is not None:
            found = self._place(connection, order, now)
        early = found is not None and found.body_hash == PLACE
        result, reason = "unknown" if number is None else "early", None
        people: Sequence[Any] = ()
        if found is not None and not early:
            people = self._rescheduling.people(connection, found.id)
            result, reason = self._done(connection, order, found, people, now, carried)
            people = self._rescheduling.people(connection, found.id)
        message_id = found.id if found is not None else 0
        if number is not None:
            self._note_end(connection, order, number, message_id, early)
        tell(connection, message_id, 0, None, "state", _answer(order, result, reason, people), now)
        carried.answered += 1

    def _done(
        self,
        connection: sa.Connection,
        order: Order,
        message: Any,
        people: Sequence[Any],
        now: int,
        carried: Carried,
    ) -> tuple[str, str | None]:
        """The result, and why not."""
        if order.when is not None:
            result, reason, lanes = self._rescheduling.reschedule(
                connection, message, people, order.when, _act(order), now
            )
            carried.lanes |= lanes
            return result, reason
        if order.verb == "cancel":
            return self._cancel(connection, order, people), None
        return "done", None

    def _meant(self, connection: sa.Connection, order: Order) -> Any | None:
        """The message or the place that is meant, held until the transaction ends."""
        ours = f"{MESSAGE} producer = :producer AND "
        values: dict[str, object] = {"producer": order.producer}
        values["identity"] = f"key:{order.target}"
        found = connection.execute(
            sa.text(ours + "identity = :identity" + self._lock), values
        ).first()
        if order.by != "id" or (found is not None and found.body_hash != PLACE):
            return found
        # Where an idempotency key took the id's place in the identity.
        values["own"] = order.target
        own = connection.execute(
            sa.text(ours + "own_id = :own ORDER BY id LIMIT 1" + self._lock), values
        ).first()
        if own is not None:
            return own
        try:
            values["id"] = unspell(order.target)
        except ValueError:
            return found
        given = connection.execute(sa.text(ours + "id = :id" + self._lock), values).first()
        return given if given is not None and given.body_hash != PLACE else found

    def _place(self, connection: sa.Connection, order: Order, now: int) -> Any:
        """A place for the message, or the message, where it came a moment before us."""
        connection.execute(
            sa.text(
                "INSERT INTO messages (id, producer, identity, body_hash, stream, sender,"
                " accepted_at, recipients, sensitive, body) VALUES (:id, :producer, :identity,"
                f" '{PLACE}', '', '', :now, 0, false, '{{}}')"
                " ON CONFLICT (producer, identity) DO NOTHING"
            ),
            {
                "id": self._ids.take(now),
                "producer": order.producer,
                "identity": f"key:{order.target}",
                "now": now,
            },
        )
        return self._meant(connection, order)

    def _note_end(
        self, connection: sa.Connection, order: Order, number: int, message_id: int, early: bool
    ) -> None:
        said = None
        if early:
            kept = {name: getattr(order, name) for name in _KEPT}
            kept["when"] = asdict(order.when) if order.when else None
            said = json.dumps(kept, ensure_ascii=False)
        connection.execute(
            orders.update()
            .where(orders.c.id == number)
            .values(message_id=message_id, waiting=early, said=said)
        )

    # --- what they ask for -----------------------------------------------------------------

    def _cancel(self, connection: sa.Connection, order: Order, people: Sequence[Any]) -> str:
        if order.recipient is not None:
            wanted = order.recipient.casefold()
            people = [p for p in people if p.email.casefold() == wanted]
        if not people:
            return "unknown"
        moved = self._surgery.move(
            connection, [p.id for p in people], State.CANCELLED, _act(order), audited=False
        )
        done = set(moved.recipient_ids)
        away = sum(p.id not in done and State(p.state) in AWAY for p in people)
        if not away:
            return "done"
        return "too_late" if away == len(people) else "partly"


def lapse(connection: sa.Connection, before: int, waiting_before: int, most: int) -> int:
    """Forget orders from before then, and those that still wait from before then (ms).

    Gives how many rows went.
    """
    o = orders.c
    over = sa.or_(o.at < before, sa.and_(_WAITING, o.at < waiting_before))
    old = sa.select(o.id).where(over).limit(most)
    return connection.execute(orders.delete().where(o.id.in_(old))).rowcount


def forget(connection: sa.Connection, address: str) -> None:
    """Drop the orders that wait for their message and name an address, in any case."""
    name = json.dumps(address.lower())
    named = sa.func.lower(orders.c.said).contains(name, autoescape=True)
    connection.execute(orders.delete().where(_WAITING, named))


#: What is kept of an order that waits for its message.
_KEPT = (
    *("verb", "producer", "identity", "body_hash", "source", "by", "target", "own_id"),
    *("recipient", "reason"),
)


def _act(order: Order) -> Act:
    return Act(f"producer {order.producer}", order.verb, order.reason)


def _answer(
    order: Order, result: str, reason: str | None, people: Sequence[Any]
) -> dict[str, object]:
    """The answer as it lies in the journal; it holds no address."""
    said: dict[str, object] = {
        "producer": order.producer,
        "command": order.verb,
        order.by: order.target,
        "result": result,
    }
    if order.own_id is not None:
        said["command_id"] = order.own_id
    if reason is not None:
        said["reason"] = reason
    if people:
        said["final"] = all(State(p.state) in FINAL for p in people)
        said["recipients"] = [_standing(p) for p in sorted(people, key=lambda p: p.n)]
    return said


def _standing(person: Any) -> dict[str, object]:
    out: dict[str, object] = {
        "id": spell(person.id),
        "n": person.n,
        "state": person.state,
        "attempts": person.attempts,
    }
    if person.error_class:
        out["error_class"] = person.error_class
    if person.state in (State.QUEUED, State.DEFERRED):
        out["due_at"] = person.due_at
    return out
