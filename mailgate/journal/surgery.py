"""What operators change: send again, cancel, discard; each with an audit row.

Owns the compare-and-set of these moves, so that ten resends of one failure are
one. Never chooses what to change: ``operations`` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mailgate.journal.buckets import BucketKey, ensure_bucket
from mailgate.journal.database import Database, packed
from mailgate.journal.settling import Settling
from mailgate.journal.suppressions import Suppressions
from mailgate.journal.tables import actions, buckets, messages, parked, recipients, renderings
from mailgate.journal.telling import EVENT
from mailgate.model.address import Address
from mailgate.model.state import RESENDABLE, WAITING, Lane, State, allowed
from mailgate.model.value import replace


@dataclass(frozen=True, slots=True)
class Act:
    """Who does what, and why."""

    who: str
    verb: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved; ``suppressed`` are those left alone because no mail may go to them."""

    recipient_ids: tuple[int, ...] = ()
    lanes: frozenset[Lane] = frozenset()
    suppressed: int = 0


class Surgery:
    """``categories`` has the category of each stream that recipients can unsubscribe from."""

    def __init__(self, database: Database, categories: Mapping[str, str] | None = None) -> None:
        self._database = database
        self._categories = categories or {}
        self._suppressions = Suppressions(database)
        self._settling = Settling(database)
        self._move = (
            "UPDATE recipients SET state = :target, due_at = v.due_at, seq = recipients.seq + 1,"
            " token = recipients.token + 1, changed_at = :now, suspect = false, deaths = 0,"
            " expires_at = CASE WHEN expires_at <= :now AND :late THEN NULL ELSE expires_at END,"
            f" error_class = %s FROM {database.rows({'id': 'bigint', 'due_at': 'bigint'})}"
            " WHERE recipients.id = v.id AND state IN (%s)"
            " RETURNING recipients.id, recipients.message_id, recipients.seq, recipients.bucket_id"
        )
        self._rebucket = sa.text(
            "UPDATE recipients SET bucket_id = v.bucket_id"
            f" FROM {database.rows({'id': 'bigint', 'bucket_id': 'bigint'})}"
            " WHERE recipients.id = v.id"
        )
        names = ", ".join(EVENT)
        self._events = sa.text(
            f"INSERT INTO events ({names}) SELECT {names} FROM {database.rows(EVENT)} WHERE true"
        )

    def move(
        self,
        connection: sa.Connection,
        ids: Sequence[int],
        target: State,
        act: Act,
        *,
        due: Mapping[int, int] | None = None,
        relay: str | None = None,
        late: bool = True,
        audited: bool = True,
    ) -> Moved:
        """Move those of ``ids`` that may go to ``target``; the others are left alone.

        ``due`` is when each is due (ms), now by default; ``relay`` the one to try first.
        What is ``late`` may go although it expired meanwhile.
        What is not ``audited`` among the operators' actions stands in the message's story alone.
        Nobody is queued again who is suppressed: the next take would stop it, and the
        operator would believe it sent.
        """
        now = self._database.now()
        # What is being sent is not ours to move, and who waits needs not be told to.
        left = {State.SENDING, target} | (WAITING if target is State.QUEUED else set())
        sources = [s for s in State if s not in left and allowed(s, target)]
        states = ", ".join(f"'{s.value}'" for s in sources)
        kept = {State.CANCELLED: "error_class", State.EXPIRED: "'by_operator'"}
        error_class = kept.get(target, "NULL")
        stopped: set[int] = set()
        if target is State.QUEUED:
            stopped = self._suppressions.among(connection, ids, states, self._categories, now)
            ids = [i for i in ids if i not in stopped]
        rows = [(i, due.get(i, now) if due else now) for i in sorted(ids)]
        found = connection.execute(
            sa.text(self._move % (error_class, states)),
            {"rows": packed(rows), "target": target.value, "now": now, "late": late},
        ).all()
        if not found:
            return Moved(suppressed=len(stopped))
        said = {"by": act.who, "verb": act.verb, "reason": act.reason, "relay": relay}
        note = json.dumps({k: v for k, v in said.items() if v is not None})
        events = [(r.message_id, r.id, r.seq, target.value, now, note) for r in found]
        connection.execute(self._events, {"rows": packed(events)})
        if audited:
            audit(connection, act, len(found), now)
        if target in (State.CANCELLED, State.SENT):
            # Nobody waits for it any more, and nobody can send it again.
            self._settling.redact(connection, {r.message_id for r in found})
        of = {r.id: r.bucket_id for r in found}
        lanes = self._by_relay(connection, of, relay)
        return Moved(tuple(of), lanes, len(stopped))

    def suppressed(self, connection: sa.Connection, ids: Sequence[int]) -> int:
        """How many of ``ids`` are not queued again, whoever asks: no mail may go to them."""
        states = ", ".join(f"'{s.value}'" for s in State if allowed(s, State.QUEUED))
        now = self._database.now()
        return len(self._suppressions.among(connection, ids, states, self._categories, now))

    def _by_relay(
        self, connection: sa.Connection, of: Mapping[int, int], relay: str | None
    ) -> frozenset[Lane]:
        """Put recipients (with their buckets) on the way that begins with ``relay``."""
        numbers = sorted(set(of.values()))
        keys = {
            row.id: BucketKey(Lane(row.lane), row.producer, tuple(row.route.split(",")), row.domain)
            for row in connection.execute(sa.select(buckets).where(buckets.c.id.in_(numbers)))
        }
        if relay is not None:
            moved = {
                number: ensure_bucket(
                    connection,
                    replace(key, route=(relay, *(r for r in key.route if r != relay))),
                )
                for number, key in keys.items()
            }
            rows = [(i, moved[number]) for i, number in sorted(of.items())]
            connection.execute(self._rebucket, {"rows": packed(rows)})
        return frozenset(key.lane for key in keys.values())

    def correct(self, connection: sa.Connection, recipient_id: int, address: Address) -> bool:
        """Write another address for one recipient; false when it waits, is sent or is gone.

        Also where the mail's To and Cc show it; what an earlier attempt rendered is forgotten,
        and the new address is charged to its own throttles.
        """
        states = [s.value for s in RESENDABLE]
        row = connection.execute(
            sa.select(recipients.c.email, recipients.c.message_id, messages.c.body)
            .join(messages, messages.c.id == recipients.c.message_id)
            .where(recipients.c.id == recipient_id, recipients.c.state.in_(states))
        ).first()
        if row is None:
            return False
        body = json.loads(row.body)
        for field in ("to", "cc"):
            for pair in body.get(field, ()):
                if pair[0] == row.email:
                    pair[0] = address.email
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        connection.execute(
            messages.update().where(messages.c.id == row.message_id).values(body=text)
        )
        connection.execute(
            recipients.update()
            .where(recipients.c.id == recipient_id)
            .values(email=address.email, charged=False)
        )
        connection.execute(renderings.delete().where(renderings.c.recipient_id == recipient_id))
        return True


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
