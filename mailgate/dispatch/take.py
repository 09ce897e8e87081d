"""The take: select the heads of open buckets, have them admitted, claim them.

Owns the order of the three and what is remembered between takes (which buckets
a limit has closed for how long). Never renders or sends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mailgate.config.shape import Config
from mailgate.dispatch.lanes import Due, Places, looked_at
from mailgate.dispatch.throttles import charges
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.database import Connection, Database
from mailgate.journal.queue import Bucket, Candidate, Head, Queue, Turn
from mailgate.journal.settling import Settlement
from mailgate.limits.rules import HORIZON, Ask, Grant, Limiter, LimiterAway
from mailgate.model.message import Claim
from mailgate.model.state import Lane
from mailgate.model.verp import bounce_address


@dataclass(frozen=True, slots=True)
class Taken:
    """A claim with the bucket it came from and, when it is paced, its permit."""

    claim: Claim
    bucket: BucketKey
    grant: Grant | None
    alone: bool = False


@dataclass(slots=True)
class Take:
    """What a take came to. ``more`` tells that due work was left for want of places,
    ``again_in`` when the first closed bucket opens (seconds), ``suspects`` that a
    recipient waits to be claimed alone."""

    turn: Turn
    taken: list[Taken] = field(default_factory=list)
    more: bool = False
    again_in: float | None = None
    suspects: bool = False


class Taker:
    def __init__(
        self, database: Database, queue: Queue, limiter: Limiter, config: Config, secret: bytes
    ) -> None:
        self._database = database
        self._queue = queue
        self._limiter = limiter
        self._config = config
        self._secret = secret
        self._places = Places(self._weight)
        self._closed: dict[int, float] = {}

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
        kept: int = 0,
    ) -> Take:
        """Settle ``settlements`` and claim up to ``want`` recipients of ``lanes``.

        ``kept`` of the places are for the high lane only. ``of`` workers live, of which
        this is number ``place``; ``busy`` tells that conversations are open, so that no
        suspect can be claimed alone now.
        Raises ``JournalAway``; then nothing is settled and nothing claimed.
        """
        now = self._database.now()
        due: list[tuple[BucketKey, list[Head]]] = []
        if want <= kept:
            lanes = [lane for lane in lanes if lane is Lane.HIGH]
        if want > 0:
            due = await self._database.read(lambda c: self._look(c, now, want, lanes, of, place))
        fresh, expired, suspects = _sorted(due, now)
        candidates, grants = await self._admit(suspects[:1] if not busy else [])
        alone = bool(candidates)
        if not alone:
            # Also when the suspect may not go now: it holds nobody up.
            candidates, grants = await self._admit(self._places.pick(fresh, want, kept))
        if not (settlements or candidates or expired):
            return Take(Turn(), again_in=self._reopens(), suspects=bool(suspects))
        lot = tuple(settlements)
        turn = await self._database.run(
            lambda c: self._queue.turn(
                c, lease=lease, settlements=lot, candidates=candidates, expired=expired
            )
        )
        buckets = {c.head.id: c.head.bucket.key for c in candidates}
        take = Take(turn, again_in=self._reopens(), suspects=bool(suspects))
        take.taken = [
            Taken(
                self._addressed(claim),
                buckets[claim.recipient_id],
                grants.get(claim.recipient_id),
                alone=alone,
            )
            for claim in turn.claims
        ]
        seen = sum(len(d.fresh) + len(d.retries) for d in fresh)
        take.more = want > 0 and seen >= want and bool(candidates)
        return take

    def _look(
        self,
        connection: Connection,
        now: int,
        want: int,
        lanes: Sequence[Lane],
        of: int,
        place: int,
    ) -> list[tuple[BucketKey, list[Head]]]:
        clock = time.monotonic()
        open_ = [
            b
            for b in self._queue.due(connection, now)
            if b.key.lane in lanes and self._closed.get(b.id, 0.0) <= clock
        ]
        most = looked_at((b.key for b in open_), want, self._weight)
        return [
            (b.key, self._queue.heads(connection, b, now, most[b.key], of, place)) for b in open_
        ]

    def _addressed(self, claim: Claim) -> Claim:
        """The claim with an envelope sender of its own, where its stream asks for one."""
        stream = self._config.streams.get(claim.stream)
        if stream is None or not stream.verp or not claim.mail_from:
            return claim
        sender = bounce_address(claim.mail_from, claim.recipient_id, self._secret)
        return replace(claim, mail_from=sender)

    def _weight(self, producer: str) -> float:
        return self._config.producer(producer).weight

    async def _admit(self, heads: Sequence[Head]) -> tuple[list[Candidate], dict[int, Grant]]:
        """The candidates that every limit admits, with the permits of the paced ones."""
        grants: dict[int, Grant] = {}
        candidates = [
            Candidate(h, self._relay(h), charges(h, self._config, self._secret)) for h in heads
        ]
        candidates = [c for c in candidates if c.relay]
        asks = [self.ask(c.relay) for c in candidates]
        if not any(ask.keys for ask in asks):
            return candidates, grants
        try:
            answers = await self._limiter.reserve(asks, HORIZON)
        except LimiterAway:
            # Fail closed: without its store no limit can be kept, so nothing goes.
            for c in candidates:
                self._close(c.head.bucket, 1.0)
            return [], grants
        admitted = []
        for candidate, ask, answer in zip(candidates, asks, answers, strict=True):
            if isinstance(answer, Grant):
                admitted.append(candidate)
                if ask.keys:
                    grants[candidate.head.id] = answer
            else:
                self._close(candidate.head.bucket, answer.wait)
        return admitted, grants

    def ask(self, relay: str) -> Ask:
        """The limits that a conversation with ``relay`` is admitted by."""
        keys = []
        if self._config.limits.total is not None:
            keys.append(("global", self._config.limits.total))
        rate = self._config.relays[relay].rate
        if rate is not None:
            keys.append((f"relay:{relay}", rate))
        return Ask(tuple(keys))

    def _relay(self, head: Head) -> str:
        """The first relay of the bucket's route that the configuration still knows."""
        route = head.bucket.key.route
        known = [name for name in route if name in self._config.relays]
        if not known and head.stream in self._config.streams:
            known = list(self._config.route(head.stream))
        return known[0] if known else ""

    def _close(self, bucket: Bucket, wait: float) -> None:
        until = time.monotonic() + wait
        self._closed[bucket.id] = max(self._closed.get(bucket.id, 0.0), until)

    def _reopens(self) -> float | None:
        clock = time.monotonic()
        self._closed = {b: t for b, t in self._closed.items() if t > clock}
        return min(self._closed.values()) - clock if self._closed else None


def _sorted(
    due: Sequence[tuple[BucketKey, list[Head]]], now: int
) -> tuple[list[Due[Head]], list[Head], list[Head]]:
    """Heads apart: those to send, those whose time is over, those to be claimed alone."""
    going, expired, suspects = [], [], []
    for key, heads in due:
        expired += [h for h in heads if h.expires_at is not None and h.expires_at <= now]
        living = [h for h in heads if h.expires_at is None or h.expires_at > now]
        suspects += [h for h in living if h.suspect]
        sure = [h for h in living if not h.suspect]
        retries = [h for h in sure if h.retry]
        going.append(Due(key, [h for h in sure if not h.retry], retries))
    return going, expired, suspects
