"""The take: select the heads of open buckets, have them admitted, claim them.

Owns the order of the three and what is remembered between takes (which buckets
a limit has closed for how long, what the gate was last shown). Never renders or sends.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mailgate import failpoints
from mailgate.config.shape import Config
from mailgate.dispatch.crowd import Crowd
from mailgate.dispatch.flow import Flow, Open, Spare
from mailgate.dispatch.gate import Gate, Way
from mailgate.dispatch.lanes import Places, looked_at
from mailgate.dispatch.sorting import Found, apart, asides, going
from mailgate.dispatch.throttles import charges
from mailgate.dispatch.witness import Witness
from mailgate.journal import pauses
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.asides import Aside, By
from mailgate.journal.breakers import Breakers
from mailgate.journal.database import Connection, Database
from mailgate.journal.overdue import overdue
from mailgate.journal.queue import Bucket, Candidate, Head, Queue, Turn
from mailgate.journal.settling import Settlement
from mailgate.limits.breaker import Subject
from mailgate.limits.policy import Policy
from mailgate.limits.rules import HORIZON, Ask, Grant, Limiter, LimiterAway
from mailgate.metrics import families
from mailgate.metrics.tally import Tally
from mailgate.model.message import Claim
from mailgate.model.state import Lane
from mailgate.model.value import Value, replace
from mailgate.model.verp import bounce_address

#: The gate is shown the breakers and pauses again after this (seconds).
VIEW = 0.8
#: A bucket that opens within this (seconds) is due: no other look may come before.
SOON = 2.0
#: What waits in a shut bucket is looked through for what is over so often (seconds).
SWEEP = 15.0
#: And so often (seconds) from the beginning: what was moved to it may have been due for long.
WHOLE = 900.0
#: Most that a look finds to be over in one bucket; with so many it looks again at once.
OVER = 500


class Admitted(NamedTuple):
    """A permit, and what was asked for it."""

    grant: Grant
    ask: Ask


class Taken(Value, frozen=True):
    """A claim with the bucket it came from and, when it is paced, its permit."""

    claim: Claim
    bucket: BucketKey
    permit: Admitted | None
    alone: bool = False
    #: What it is the one probe of.
    probes: tuple[Subject, ...] = ()


class Sweep(NamedTuple):
    """What is known of a shut bucket: when it is looked through ``again``, when as a ``whole``.

    ``oldest`` are the due times up to which it was looked through, by stream. Times are those
    of the monotonic clock.
    """

    again: float
    whole: float
    oldest: Mapping[str, int]


@dataclass(slots=True)
class Take:
    """What a take came to. ``more`` tells that due work was left for want of places,
    ``again_in`` when the first closed bucket opens (seconds), ``suspects`` that a
    recipient waits to be claimed alone, ``crowded`` that some wait for a conversation's end,
    ``stuck`` who has not replied for long, ``silent`` how many are open to relays that have
    not replied of late (``flow``)."""

    turn: Turn
    taken: list[Taken] = field(default_factory=list)
    more: bool = False
    again_in: float | None = None
    suspects: bool = False
    crowded: bool = False
    stuck: frozenset[tuple[str, str]] = frozenset()
    silent: int = 0


class Taker:
    def __init__(
        self,
        database: Database,
        queue: Queue,
        limiter: Limiter,
        config: Config,
        secret: bytes,
        tally: Tally,
    ) -> None:
        self._database = database
        self._queue = queue
        self._limiter = limiter
        self._config = config
        self._secret = secret
        self._tally = tally
        self._places = Places(self._weight)
        self._policy = Policy(config)
        self._crowd = Crowd(database, queue)
        self.flow = Flow(config)
        self.gate = Gate(config)
        self.witness = Witness(self.gate, self.flow)
        self._breakers = Breakers(database, config.breakers, random.random)
        self._closed: dict[int, float] = {}
        self._viewed = -VIEW
        self._swept: dict[int, Sweep] = {}
        # Of how many workers this is which, as of the last take.
        self._share = (1, 0)

    def adopt(self, config: Config) -> None:
        """Go by another configuration, from the next take on."""
        self._config = config
        self._policy = Policy(config)
        self._breakers = Breakers(self._database, config.breakers, random.random)
        self.gate.adopt(config)
        self.flow.adopt(config)
        # What a limit has closed may be open by another.
        self._closed.clear()

    def renewed(self, ask: Ask) -> Ask:
        """An ask from before, by the limits of now."""
        return self._policy.renewed(ask)

    async def take(
        self,
        *,
        want: int,
        lanes: Sequence[Lane],
        lease: int,
        settlements: Sequence[Settlement] = (),
        of: int = 1,
        place: int = 0,
        busy: bool = False,
        open_: Iterable[Open] = (),
        kept: int = 0,
    ) -> Take:
        """Settle ``settlements`` and claim up to ``want`` recipients of ``lanes``.

        ``kept`` of the places are for the high lane only. ``of`` workers live, of which
        this is number ``place``; ``busy`` tells that conversations are open, so that no
        suspect can be claimed alone now. ``open_`` are those that hold places.
        Raises ``JournalAway``; then nothing is settled and nothing claimed.
        """
        now = self._database.now()
        self.witness.workers = of
        self._share = (of, place)
        self._crowd.ended(settlements)
        due: Found = []
        spare = self.flow.spare(open_, time.monotonic())
        if want <= kept:
            lanes = [lane for lane in lanes if lane is Lane.HIGH]
        if want > 0:
            due = await self._database.read(
                lambda c: self._look(c, now, want, lanes, of, place, spare)
            )
        found, expired, suspects = apart(due, self._config, now)
        ways = self.gate.ways([*suspects, *(h for _, heads in found for h in heads)], now)
        moves = asides(found, ways)
        found, before = spare.placed(found, ways)
        moves += self._left_out(before)
        fresh = going(found, ways)
        able = [h for h in suspects if ways[h.id].relay]
        candidates, permits, _ = await self._admit(able[:1] if not busy else [], ways)
        alone = bool(candidates)
        if not alone:
            # Also when the suspect may not go now: it holds nobody up.
            heads = self._places.pick(fresh, want, kept)
            candidates, permits, limited = await self._admit(heads, ways)
            moves = list(dict.fromkeys([*moves, *limited]))
        if not (settlements or candidates or expired or moves):
            return self._came_to(Turn(), able, spare)
        if candidates:
            failpoints.hit("take.admitted")
        lot = tuple(settlements)
        turn = await self._database.run(
            lambda c: self._queue.turn(
                c,
                lease=lease,
                settlements=lot,
                candidates=candidates,
                expired=expired,
                asides=moves,
                breakers=self._breakers,
            )
        )
        self.gate.learn(turn.changes)
        if any(c.probes for c in candidates):
            # Whoever got the probe: it is seen to be under way.
            self._viewed = -VIEW
        by_id = {c.head.id: c for c in candidates}
        take = self._came_to(turn, able, spare)
        take.taken = [
            Taken(
                self._addressed(claim),
                by_id[claim.recipient_id].head.bucket.key,
                permits.get(claim.recipient_id),
                alone=alone,
                probes=by_id[claim.recipient_id].probes,
            )
            for claim in turn.claims
        ]
        seen = sum(len(d.fresh) + len(d.retries) for d in fresh)
        take.more = want > 0 and seen >= want and bool(candidates)
        return take

    def _came_to(self, turn: Turn, able: Sequence[Head], spare: Spare) -> Take:
        reopens, crowd = self._reopens(), self._crowd.opens_in()
        waits = [wait for wait in (reopens, crowd) if wait is not None]
        again_in = min(waits, default=None)
        return Take(
            turn,
            again_in=again_in,
            suspects=bool(able),
            crowded=crowd is not None,
            stuck=spare.stuck,
            silent=spare.silent,
        )

    def _look(
        self,
        connection: Connection,
        now: int,
        want: int,
        lanes: Sequence[Lane],
        of: int,
        place: int,
        spare: Spare,
    ) -> list[tuple[BucketKey, list[Head]]]:
        self._show(connection, now)
        clock = time.monotonic()
        found: Found = []
        open_ = []
        for b in self._queue.due(connection, now):
            if b.key.lane not in lanes or self._closed.get(b.id, 0.0) > clock:
                continue
            if self._crowd.is_shut(b.id):
                continue
            if not (spare.none(b.key) or self.gate.shut(b.key, now)):
                open_.append(b)
            elif self._sweeps(b, clock):
                found.append((b.key, self._over(connection, b, now, clock)))
        most = looked_at((b.key for b in open_), want, self._weight)
        for b in open_:
            heads = self._queue.heads(connection, b, now, most[b.key], of, place)
            found.append((b.key, heads))
        return found

    def _addressed(self, claim: Claim) -> Claim:
        """The claim with an envelope sender of its own, where its stream asks for one."""
        stream = self._config.streams.get(claim.stream)
        if stream is None or not stream.verp or not claim.mail_from:
            return claim
        sender = bounce_address(claim.mail_from, claim.recipient_id, self._secret)
        return replace(claim, mail_from=sender)

    def _weight(self, producer: str) -> float:
        return self._config.producer(producer).weight

    def _show(self, connection: Connection, now: int) -> None:
        clock = time.monotonic()
        if self.witness.uneasy or clock - self._viewed >= VIEW:
            self.witness.uneasy = False
            self.gate.see(self._breakers.view(connection, now), pauses.names(connection))
            self._viewed = clock

    def _sweeps(self, bucket: Bucket, clock: float) -> bool:
        """Whether it is ours to look through a shut bucket, and time to."""
        of, place = self._share
        last = self._swept.get(bucket.id)
        return bucket.id % of == place and (last is None or last.again <= clock)

    def _over(self, connection: Connection, bucket: Bucket, now: int, clock: float) -> list[Head]:
        """What waits in a shut bucket, and whose time is over all the same."""
        last = self._swept.get(bucket.id)
        if last is None or last.whole <= clock:
            last = Sweep(clock, clock + WHOLE, {})
        oldest = {
            name: now - int(stream.retry.give_up * 1000)
            for name, stream in self._config.streams.items()
        }
        over = overdue(connection, bucket, now, oldest, last.oldest, OVER)
        if len(over) < OVER:
            self._swept[bucket.id] = Sweep(clock + SWEEP, last.whole, oldest)
        return over

    def due(self, connection: Connection, now: int) -> frozenset[Lane]:
        """The lanes that have something to do in a bucket that is not shut.

        One that a limit has closed for long calls nobody: what comes to it waits anyway.
        """
        self._show(connection, now)
        clock = time.monotonic()
        return frozenset(
            b.key.lane
            for b in self._queue.due(connection, now)
            if self._closed.get(b.id, 0.0) <= clock + SOON
            and (not self.gate.shut(b.key, now) or self._sweeps(b, clock))
        )

    async def _admit(
        self, heads: Sequence[Head], ways: Mapping[int, Way]
    ) -> tuple[list[Candidate], dict[int, Admitted], list[Aside]]:
        """The candidates that every limit admits, with the permits of the paced ones.

        And what has to be put aside: those whom a limit refuses that is not of all with
        whom they wait.
        """
        candidates = [
            Candidate(
                h,
                ways[h.id].relay,
                charges(h, self._config, self._secret),
                ways[h.id].probes,
                caps=self._policy.caps(ways[h.id].relay, self._policy.destination(h.domain)),
            )
            for h in heads
        ]
        crowded = await self._crowd.outside(candidates)
        moves = self._left_out([c.head for c in candidates if c.head.id in crowded])
        candidates = [c for c in candidates if c.head.id not in crowded]
        asks = [self._ask(c) for c in candidates]
        if not any(ask.keys for ask in asks):
            return candidates, {}, moves
        full = await self._full(candidates)
        if full:
            # Only moved on: who cannot go takes no permit from those who can.
            ids = {c.head.id for c in full}
            candidates = [c for c in candidates if c.head.id not in ids]
            asks = [self._ask(c) for c in candidates]
        try:
            answers = await self._limiter.reserve(asks, HORIZON)
        except LimiterAway:
            self._tally.add(families.LIMITER_AWAY)
            # Fail closed: without its store no limit can be kept, so nothing goes.
            for c in candidates:
                self._close(c.head.bucket, 1.0)
            return full, {}, moves
        permits: dict[int, Admitted] = {}
        admitted = []
        for candidate, ask, answer in zip(candidates, asks, answers, strict=True):
            head = candidate.head
            if isinstance(answer, Grant):
                admitted.append(candidate)
                if ask.keys:
                    permits[head.id] = Admitted(answer, ask)
                continue
            self._tally.add(families.REFUSALS, (answer.key.partition(":")[0],))
            aside = _limited(head, self._policy.separating(answer.key))
            if aside is None:
                self._close(head.bucket, answer.wait)
            else:
                moves.append(aside)
        return admitted + full, permits, moves

    def _left_out(self, heads: Sequence[Head]) -> list[Aside]:
        """How to put aside heads whose destination has all the conversations it may have."""
        moves = []
        for head in heads:
            aside = _limited(head, "domain")
            if aside is None:
                self._crowd.shut(head.bucket.id)
            else:
                moves.append(aside)
        return moves

    async def _full(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those of ``candidates`` that a throttle has no room for now."""
        if not any(c.charges for c in candidates):
            return []
        ids = await self._database.read(lambda c: self._queue.full(c, candidates))
        return [replace(c, full=True) for c in candidates if c.head.id in ids]

    def _ask(self, candidate: Candidate) -> Ask:
        """The limits that an attempt is admitted by: the configured, and the slowed ones."""
        head, relay = candidate.head, candidate.relay
        domain, sender = self._policy.destination(head.domain), self._policy.identity(head.sender)
        ask = self._policy.ask(relay, domain, head.producer, sender, not head.tried)
        slow = self.gate.limits(relay, head.domain, self._database.now())
        return Ask((*ask.keys, *slow)) if slow else ask

    def _close(self, bucket: Bucket, wait: float) -> None:
        until = time.monotonic() + wait
        self._closed[bucket.id] = max(self._closed.get(bucket.id, 0.0), until)

    def _reopens(self) -> float | None:
        clock = time.monotonic()
        self._closed = {b: t for b, t in self._closed.items() if t > clock}
        return min(self._closed.values()) - clock if self._closed else None


def _limited(head: Head, by: Literal["domain", "sender"] | None) -> Aside | None:
    """How to put aside a head that a limit of its destination or sender refused."""
    if by is None:
        return None
    aside = Aside(
        head.bucket.id, head.bucket.key, By(by), head.domain if by == "domain" else head.sender
    )
    return None if aside.there == head.bucket.key else aside
