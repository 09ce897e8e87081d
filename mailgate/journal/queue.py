"""The journal as the queue: what is due, and claiming it.

Owns selection and the claim (compare and set, fencing token). Never decides
which bucket goes first (``dispatch.lanes``) or whether a limit admits.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from mailgate import failpoints
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.asides import Aside, Asides
from mailgate.journal.breakers import Book, Breakers, Change, Probe
from mailgate.journal.contents import Contents, Way
from mailgate.journal.database import Database, packed, surely
from mailgate.journal.gathering import Gather, Gathering
from mailgate.journal.places import Places
from mailgate.journal.settling import Settlement, Settling
from mailgate.journal.suppressions import Suppressions, Wanted
from mailgate.journal.tables import WAITING_SQL
from mailgate.journal.throttle import Charge, Throttles, Wait
from mailgate.limits.breaker import Subject
from mailgate.limits.policy import Cap
from mailgate.model.ids import Ids
from mailgate.model.message import Claim
from mailgate.model.state import Lane, State
from mailgate.model.value import Value

#: What ``head_of`` reads.
HEAD = (
    "SELECT r.id, r.message_id, r.email, r.token, r.suspect, r.charged, r.expires_at,"
    " r.due_at, r.attempts > 0 AS tried, r.state = 'deferred' AS retry,"
    " m.producer, m.stream, m.sender, m.template, m.tags, m.throttle"
)
#: The buckets in which anything waits, each found behind the one before: those in which
#: nothing does any more, of which there are more and more, cost nothing.
_HELD = (
    f"WITH RECURSIVE held(id) AS (SELECT min(bucket_id) FROM recipients WHERE {WAITING_SQL}"
    f" UNION ALL SELECT (SELECT min(r.bucket_id) FROM recipients r WHERE r.{WAITING_SQL}"
    " AND r.bucket_id > held.id) FROM held WHERE held.id IS NOT NULL)"
)


class Bucket(Value, frozen=True):
    id: int
    key: BucketKey


class Head(Value, frozen=True):
    """A recipient that is due, as far as the take must know it."""

    id: int
    message_id: int
    bucket: Bucket
    email: str
    producer: str
    stream: str
    #: The From address in wire form.
    sender: str
    template: str | None
    tags: str | None
    throttle: str | None
    token: int
    suspect: bool
    charged: bool
    expires_at: int | None
    due_at: int
    #: A conversation was held about it before, and so its producer was charged.
    tried: bool = False
    #: It was tried and refused before.
    retry: bool = False

    @property
    def domain(self) -> str:
        """The destination: what follows the @-sign of the address."""
        return self.email.rpartition("@")[2]


class Candidate(Value, frozen=True):
    """A head that the limits admitted: the relay it goes to, and its throttle charges.

    With ``probes`` it goes only as the one probe of all these. With ``full`` a throttle was
    seen to have no room for it: it has no permits, and is moved on and not claimed.
    """

    head: Head
    relay: str
    charges: tuple[Charge, ...] = ()
    probes: tuple[Subject, ...] = ()
    full: bool = False
    #: How many conversations there may be at once, it included.
    caps: tuple[Cap, ...] = ()


@dataclass(slots=True)
class Turn:
    """What one transaction of a worker came to."""

    settled: set[int] = field(default_factory=set)
    claims: list[Claim] = field(default_factory=list)
    #: Recipients that a throttle moved on: (id, dropped).
    waiting: list[tuple[int, bool]] = field(default_factory=list)
    expired: int = 0
    suppressed: int = 0
    #: Breakers that opened, closed or were written otherwise.
    changes: list[Change] = field(default_factory=list)
    #: Waiting recipients that were put aside.
    aside: int = 0


class Queue:
    """``categories`` has the category of each stream that recipients can unsubscribe from."""

    def __init__(self, database: Database, categories: Mapping[str, str] | None = None) -> None:
        self._database = database
        self._categories = categories or {}
        self._suppressions = Suppressions(database)
        self.settling = Settling(database)
        self._throttles = Throttles(database)
        self._places = Places(database)
        self._asides = Asides(database)
        self._gathering = Gathering(database)
        self._ids = Ids(random.random)
        waiting = "state IN ('queued', 'deferred')"
        # One entry of the index for each bucket and state; as EXISTS or a join PostgreSQL
        # may read all that is due.
        one = [
            f"(SELECT 1 FROM recipients r WHERE r.bucket_id = b.id AND r.{waiting}"
            f" AND r.state = '{state}' AND r.due_at <= :now LIMIT 1)"
            for state in (State.QUEUED, State.DEFERRED)
        ]
        self._due = sa.text(
            f"{_HELD} SELECT b.id, b.lane, b.producer, b.route, b.domain"
            " FROM held CROSS JOIN buckets b WHERE b.id = held.id AND b.open_at <= :now"
            f" AND COALESCE({', '.join(one)}) = 1 ORDER BY held.id"
        )
        next_one = [
            f"(SELECT min(r.due_at) FROM recipients r WHERE r.bucket_id = b.id AND r.{waiting}"
            f" AND r.state = '{state}' AND r.due_at > :now)"
            for state in (State.QUEUED, State.DEFERRED)
        ]
        self._next = sa.text(
            f"{_HELD} SELECT {', '.join(f'min({at})' for at in next_one)} FROM held b"
        )
        heads = (
            f"{HEAD} FROM recipients r JOIN messages m ON m.id = r.message_id"
            f" WHERE r.bucket_id = :bucket AND r.{waiting} AND r.due_at <= :now"
        )
        tail = " ORDER BY r.due_at, r.id LIMIT :most"
        own = " AND r.id % :of = :place"

        def each(more: str) -> sa.TextClause:
            # Fresh ones and retries apart, each from its own end of the index: what waits
            # to be tried again, however much, hides nothing that was never tried.
            parts = [
                f"SELECT * FROM ({heads} AND r.state = '{state}'{more}{tail}) AS {state}_heads"
                for state in (State.QUEUED, State.DEFERRED)
            ]
            return sa.text(" UNION ALL ".join(parts))

        # By (own, without suspects).
        self._heads = {
            (mine, sure): each(own * mine + " AND NOT r.suspect" * sure)
            for mine in (False, True)
            for sure in (False, True)
        }
        # Not by the index of what waits, which either database reads wholly where it believes
        # that few do.
        still = surely(f"recipients.{waiting}")
        # Only what is as it was looked at: a row that another claimed and put back
        # meanwhile may be charged by now, and meant for another relay.
        wanted = database.rows({"id": "bigint", "token": "bigint"})
        claimed = (
            "state = 'sending', token = recipients.token + 1, claims = recipients.claims + 1,"
            " seq = recipients.seq + 1, lease_id = :lease, charged = true, changed_at = :now"
        )
        if database.sqlite:
            self._claim = sa.text(
                f"UPDATE recipients SET {claimed} FROM {wanted} WHERE recipients.id = v.id"
                f" AND recipients.token = v.token AND {still} AND recipients.due_at <= :now"
                " AND EXISTS (SELECT 1 FROM leases WHERE leases.id = :lease)"
                " RETURNING recipients.id"
            )
        else:
            due = surely(f"r.{waiting} AND r.due_at <= :now")
            # MATERIALIZED, or the planner may run the locking query once a row and
            # claim more than was asked. The lease's lock keeps a claim and the
            # burial of its claimant apart.
            self._claim = sa.text(
                "WITH lease AS MATERIALIZED (SELECT id FROM leases WHERE id = :lease FOR SHARE),"
                f" mine AS MATERIALIZED (SELECT r.id FROM recipients r JOIN {wanted}"
                f" ON r.id = v.id AND r.token = v.token WHERE {due}"
                " ORDER BY r.id FOR UPDATE OF r SKIP LOCKED)"
                f" UPDATE recipients SET {claimed} FROM mine, lease"
                " WHERE recipients.id = mine.id RETURNING recipients.id"
            )
        self.contents = Contents(database)
        self._move = sa.text(
            "UPDATE recipients SET state = v.state, due_at = v.due_at, seq = recipients.seq + 1,"
            " token = recipients.token + 1, changed_at = :now, error_class = v.error_class FROM "
            + database.rows(
                {
                    "id": "bigint",
                    "token": "bigint",
                    "state": "text",
                    "due_at": "bigint",
                    "error_class": "text",
                }
            )
            + f" WHERE recipients.id = v.id AND recipients.token = v.token AND {still}"
            " RETURNING recipients.id, recipients.message_id, recipients.seq, recipients.state"
        )

    # --- looking ---------------------------------------------------------------

    def due(self, connection: sa.Connection, now: int) -> list[Bucket]:
        """The open buckets that hold something due."""
        return [
            Bucket(
                row.id,
                BucketKey(Lane(row.lane), row.producer, tuple(row.route.split(",")), row.domain),
            )
            for row in connection.execute(self._due, {"now": now})
        ]

    def heads(
        self, connection: sa.Connection, bucket: Bucket, now: int, most: int, of: int, place: int
    ) -> list[Head]:
        """Up to ``most`` heads of a bucket that were never refused, and as many retries.

        The oldest due come first. Each of ``of`` workers prefers the ids of its own
        ``place``, so that they do not all reach for the same rows; when its own run short
        it takes any. Suspects come besides: those that a death left behind take nobody's
        place.
        """
        values = {"bucket": bucket.id, "now": now, "most": most, "of": of, "place": place}
        found = self._first(connection, bucket, values, sure=False)
        suspects = [h for h in found if h.suspect]
        return suspects + self._first(connection, bucket, values, sure=True) if suspects else found

    def _first(
        self, connection: sa.Connection, bucket: Bucket, values: Mapping[str, int], *, sure: bool
    ) -> list[Head]:
        def look(mine: bool) -> list[Head]:
            rows = connection.execute(self._heads[mine, sure], values)
            return [head_of(bucket, row) for row in rows]

        if values["of"] == 1:
            return look(mine=False)
        own, most = look(mine=True), values["most"]
        retries = sum(h.retry for h in own)
        # Enough of its own; but retries do not stand in for fresh mail of another place.
        if len(own) >= most and (not retries or 2 * (len(own) - retries) >= most):
            return own
        found = {h.id: h for h in (*own, *look(mine=False))}
        kinds = [[h for h in found.values() if h.retry is kind] for kind in (False, True)]
        return [h for kind in kinds for h in kind[:most]]

    def full(self, connection: sa.Connection, candidates: Sequence[Candidate]) -> set[int]:
        """Those that a throttle has no room for, as far as can be seen without a lock."""
        wanted = [(c.head.id, c.charges) for c in candidates]
        now = self._database.now()
        return set(self._throttles.decide(connection, wanted, now, hold=False)[1])

    def crowded(
        self,
        connection: sa.Connection,
        candidates: Sequence[Candidate],
        settlements: Sequence[Settlement],
    ) -> set[int]:
        """Those that find no place beside what is under way, as far as can be seen.

        ``settlements`` are written before they are claimed.
        """
        wanted = [(c.head.id, c.caps) for c in candidates]
        leaving = {s.recipient_id for s in settlements}
        fits = self._places.fit(connection, wanted, hold=False, leaving=leaving)
        return {c.head.id for c in candidates} - fits

    def next_due(self, connection: sa.Connection, now: int) -> frozenset[Lane]:
        """The lanes that have something due in an open bucket."""
        return frozenset(b.key.lane for b in self.due(connection, now))

    def next_at(self, connection: sa.Connection, now: int) -> int | None:
        """When the next one falls due that is not due now (ms); one look a bucket."""
        found = connection.execute(self._next, {"now": now}).one()
        return min((int(at) for at in found if at is not None), default=None)

    # --- one worker's transaction ----------------------------------------------------

    def turn(
        self,
        connection: sa.Connection,
        *,
        lease: int,
        settlements: Sequence[Settlement],
        candidates: Sequence[Candidate],
        expired: Sequence[Head] = (),
        asides: Sequence[Aside] = (),
        breakers: Breakers | None = None,
    ) -> Turn:
        """Settle what ended, put aside what is in the way and claim what was admitted.

        All in one transaction. Without ``breakers`` nothing is entered or probed there.
        """
        now = self._database.now()
        turn = Turn()
        turn.settled = self.settling.write(connection, settlements, now)
        if expired:
            rows = [(h.id, h.token, State.EXPIRED.value, now, _why(h, now)) for h in expired]
            turn.expired = len(self._moved(connection, rows, {}, now))
        for aside in asides:
            turn.aside += self._asides.move(connection, aside, now)
        if breakers is None:
            self._claimed(connection, turn, lease, candidates, None, now)
            return turn
        if settlements:
            failpoints.hit("settle.before_commit")
        told = [s for s in settlements if s.signals and s.recipient_id in turn.settled]
        wanted = [who for c in candidates for who in c.probes]
        book = breakers.open_book(connection, told, wanted, now)
        self._claimed(connection, turn, lease, candidates, book, now)
        turn.changes = book.write()
        if turn.claims:
            failpoints.hit("take.before_commit")
        return turn

    def _claimed(
        self,
        connection: sa.Connection,
        turn: Turn,
        lease: int,
        candidates: Sequence[Candidate],
        book: Book | None,
        now: int,
    ) -> None:
        """Claim those of ``candidates`` that suppressions, throttles and breakers let go."""
        if book is not None and book.records:
            candidates = [
                c
                for c in candidates
                if not book.bars(c.relay, c.head.domain, c.head.sender, c.probes)
            ]
        stopped, turn.suppressed = self._stopped(connection, candidates, now)
        candidates = [c for c in candidates if c.head.id not in stopped]
        if not candidates:
            return
        by_id = {c.head.id: c for c in candidates}
        wanted = [(c.head.id, c.charges) for c in candidates]
        fits, waits = self._throttles.decide(connection, wanted, now)
        joins = self._joins(connection, wanted, fits, now)
        if joins:
            fits = [i for i in fits if i not in joins]
            waits |= joins
        if waits:
            turn.waiting = self._wait(connection, waits, by_id, now)
        fits = [i for i in fits if not by_id[i].full]
        placed = self._places.fit(connection, [(i, by_id[i].caps) for i in fits])
        fits = [i for i in fits if i in placed]
        if book is not None:
            probes = [
                Probe(i, by_id[i].head.token + 1, by_id[i].probes) for i in fits if by_id[i].probes
            ]
            if probes:
                ready = book.probes(probes)
                fits = [i for i in fits if i in ready or not by_id[i].probes]
        if not fits:
            return
        ids = packed([(i, by_id[i].head.token) for i in sorted(fits)])
        claimed = set(
            connection.execute(self._claim, {"rows": ids, "lease": lease, "now": now}).scalars()
        )
        charged = [(i, by_id[i].charges) for i in fits if i in claimed]
        self._throttles.charge(connection, charged, now)
        seated = [(i, by_id[i].head.token + 1, by_id[i].caps) for i in fits if i in claimed]
        self._places.take(connection, seated)
        ways = {i: Way(by_id[i].relay, by_id[i].head.bucket.key.lane) for i in fits if i in claimed}
        turn.claims = self.contents.read(connection, ways)

    def _stopped(
        self, connection: sa.Connection, candidates: Sequence[Candidate], now: int
    ) -> tuple[set[int], int]:
        """Those that are suppressed, and how many of them were still there to be moved on."""
        heads = {c.head.id: c.head for c in candidates}
        wanted = [
            Wanted(h.id, h.email.casefold(), h.producer, self._categories.get(h.stream, ""))
            for h in heads.values()
        ]
        stops = self._suppressions.look(connection, wanted, now)
        if not stops:
            return set(), 0
        state = State.SUPPRESSED.value
        rows = [(i, heads[i].token, state, now, "suppressed") for i in stops]
        notes = {i: stop.note for i, stop in stops.items()}
        return set(stops), len(self._moved(connection, rows, notes, now))

    def _joins(
        self,
        connection: sa.Connection,
        wanted: Sequence[tuple[int, Sequence[Charge]]],
        fits: Sequence[int],
        now: int,
    ) -> dict[int, Wait]:
        """Those that fit, and join a digest that waits for the same room.

        Else who comes in the moment of room would take it from those who wait longer.
        """
        of = {i: [c for c in charges if c.digest is not None] for i, charges in wanted}
        slots = {c.key for i in fits for c in of[i]}
        open_ = self._gathering.open(connection, slots)
        found = {}
        for i in fits:
            charge = next((c for c in of[i] if c.key in open_), None)
            if charge is not None:
                found[i] = Wait(now, False, str(charge), charge)
        return found

    def _wait(
        self,
        connection: sa.Connection,
        waits: Mapping[int, Wait],
        by_id: Mapping[int, Candidate],
        now: int,
    ) -> list[tuple[int, bool]]:
        rows = []
        notes: dict[int, object] = {}
        gathers = []
        for id_, wait in waits.items():
            head = by_id[id_].head
            state, due = State.QUEUED, max(wait.due_at, now + 1)
            notes[id_] = {"waits_for": wait.limit, "due_at": wait.due_at}
            if wait.drop:
                state = State.THROTTLED
                notes[id_] = {"dropped_by": wait.limit}
            elif wait.gather is not None and wait.gather.digest is not None:
                state = State.GATHERING
                charge, (name, digest) = wait.gather, wait.gather.digest
                notes[id_] = {"waits_for": wait.limit}
                gather = Gather(charge.key, name, head.producer, charge.rule, digest, None, due)
                gathers.append((id_, gather))
            rows.append((id_, head.token, state.value, due, "throttled"))
        moved = self._moved(connection, rows, notes, now)
        there = {id_ for id_, state in moved if state is State.GATHERING}
        gathers = [(id_, gather) for id_, gather in gathers if id_ in there]
        self._gathering.add(connection, gathers, now, lambda: self._ids.take(now))
        return [(id_, state is State.THROTTLED) for id_, state in moved]

    def _moved(
        self,
        connection: sa.Connection,
        rows: Sequence[tuple[int, int, str, int, str]],
        notes: Mapping[int, object],
        now: int,
    ) -> list[tuple[int, State]]:
        found = connection.execute(self._move, {"rows": packed(sorted(rows)), "now": now}).all()
        events = [
            (r.message_id, r.id, r.seq, r.state, now, json.dumps(notes.get(r.id, {})))
            for r in found
        ]
        self.settling.events.write(connection, events)
        dropped = {r.message_id for r in found if r.state == State.THROTTLED.value}
        self.settling.redact(connection, dropped)
        return [(r.id, State(r.state)) for r in found]


def _why(head: Head, now: int) -> str:
    """Its own time is over, or it has waited for as long as its stream tries."""
    over = head.expires_at is not None and head.expires_at <= now
    return "expired" if over else "gave_up"


def head_of(bucket: Bucket, row: Any) -> Head:
    # By position: a name is looked up in each row anew.
    id_, message_id, email, token, suspect, charged, expires_at, due_at, *more = row
    tried, retry, *said = more
    producer, stream, sender, template, tags, throttle = said
    return Head(
        id_,
        message_id,
        bucket,
        email,
        producer,
        stream,
        sender,
        template,
        tags,
        throttle,
        token,
        bool(suspect),
        bool(charged),
        expires_at,
        due_at,
        bool(tried),
        bool(retry),
    )
