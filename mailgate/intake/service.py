"""The intake process: doors open, batches in, rings out.

Owns the order receive → commit → ring → acknowledge, in which the ring for a few goes out
while they are being written, and what happens when the
journal is away (consuming stops, nothing is handed back) or the process is told
to stop. Never looks into a delivery.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from mailgate import failpoints
from mailgate.intake.accept import Accept
from mailgate.intake.door import Delivery, Door, DoorClosed
from mailgate.journal.arrivals import Stored
from mailgate.journal.database import JournalAway
from mailgate.metrics import families
from mailgate.metrics.tally import Tally
from mailgate.model.state import RING_AHEAD, Lane

#: How long a door waits for the first delivery before it looks whether to stop (seconds).
_WAIT = 1.0
#: Tries to reach a journal that is away: first and longest wait (seconds).
_AGAIN = (0.2, 1.0)
#: A batch this long (deliveries) or this large (bytes) is worth its transaction. No door is
#: filled by fewer bytes: half of the least ``intake.batch_bytes``.
_WORTH = 100, 2**19
#: After one that is not, a door rests so many times as long as it took, at most so long (s).
_REST, _LONGEST_REST = 3.0, 0.1

#: So few deliveries are rung for while they are written, where the last writing was quick: a
#: ring is as long on its way as a small transaction takes.
_FEW = 4

_log = logging.getLogger("mailgate.intake")


async def serve(
    doors: Sequence[Door],
    accept: Callable[[], Accept],
    ring: Callable[[Lane], None],
    stop: asyncio.Event,
    *,
    batch: int,
    on_ready: Callable[[], None] = lambda: None,
    tally: Tally | None = None,
) -> None:
    """Take in until ``stop`` is set; then what is in hand is finished or handed back.

    ``accept`` makes one writer a door. Ends with an error only when a door is
    broken for good.
    """
    for door in doors:
        await door.open()
    on_ready()
    tally = tally or Tally()
    pumps = [asyncio.create_task(_pump(d, accept(), ring, stop, batch, tally)) for d in doors]
    try:
        await asyncio.gather(*pumps)
    finally:
        stop.set()
        await asyncio.gather(*pumps, return_exceptions=True)
        for door in doors:
            await door.close()


async def _pump(
    door: Door,
    accept: Accept,
    ring: Callable[[Lane], None],
    stop: asyncio.Event,
    batch: int,
    tally: Tally,
) -> None:
    # Rows that are known for a redelivery until the broker knows what was acknowledged.
    unsure: list[int] = []
    session: int | None = None
    quick = True
    while not stop.is_set():
        try:
            deliveries = await _received(door, batch, stop)
        except DoorClosed:
            break
        if not deliveries:
            if unsure and (known := await door.done(())) is not None:
                if known:
                    await _stored(accept, (), unsure, stop, tally)
                unsure = []
            continue
        failpoints.hit("intake.received")
        begun = time.monotonic()
        rings = _Rings(ring)
        early = rings.ahead if quick and len(deliveries) <= _FEW else None
        stored = await _stored(accept, deliveries, (), stop, tally, early)
        if stored is None:
            # Told to stop while the journal was away: the broker keeps them.
            await door.release(deliveries)
            break
        failpoints.hit("intake.after_commit")
        # Nobody need wait for the broker to hear that it may forget them.
        written = time.monotonic()
        rings.after(stored.lanes, written)
        taken = written - begun
        quick = taken < RING_AHEAD
        _count(tally, stored, taken)
        failpoints.hit("intake.before_ack")
        acknowledged = await door.done(deliveries)
        failpoints.hit("intake.after_ack")
        _log.debug(
            "batch",
            extra={
                "accepted": stored.accepted,
                "repeated": stored.repeated,
                "conflicts": stored.conflicts,
                "parked": stored.parked,
            },
        )
        # Not acknowledged, the rows stay known for the redelivery. Acknowledged, they are
        # forgotten now and not with the next batch: killed in between, equal messages that
        # come again would be taken for them.
        if deliveries[0].session != session:
            unsure, session = [], deliveries[0].session
        if acknowledged is None:
            unsure += stored.unacked
        elif acknowledged and stored.unacked:
            await _stored(accept, (), [*unsure, *stored.unacked], stop, tally)
            unsure = []
        if pause := rest(deliveries, batch, taken):
            await _stopped(stop, pause)


class _Rings:
    """The rings for one batch: ahead of its commit, and after it what those may have missed."""

    def __init__(self, ring: Callable[[Lane], None]) -> None:
        self._ring = ring
        self._rung: dict[Lane, float] = {}

    def ahead(self, lane: Lane) -> None:
        self._rung[lane] = time.monotonic()
        self._ring(lane)

    def after(self, lanes: Collection[Lane], written: float) -> None:
        """Of a batch that was ``written`` at that moment (monotonic)."""
        for lane in lanes:
            if lane not in self._rung or written - self._rung[lane] > RING_AHEAD:
                self._ring(lane)


def rest(deliveries: Sequence[Delivery], batch: int, seconds: float) -> float:
    """How long (s) a door lets more come together, after these took ``seconds`` to write.

    Not at all after a full one (``batch`` deliveries, or as many bytes as a door gives), nor
    while what others left behind comes, a few at a time: there is more already.

    A transaction costs as much as some twenty messages in it. Who comes alone is never waited
    for; where several come during one write, there will be more: the slower the journal, as
    when ten intakes share it, the longer it is worth to gather. (PostgreSQL's
    ``commit_delay`` and ``commit_siblings`` are the same thought.)
    """
    enough, large = min(batch, _WORTH[0]), _WORTH[1]
    if not 1 < len(deliveries) < enough or sum(len(d.body) for d in deliveries) >= large:
        return 0.0
    if any(d.redelivered for d in deliveries):
        return 0.0
    return min(_LONGEST_REST, _REST * seconds)


async def _stopped(stop: asyncio.Event, seconds: float) -> None:
    """Until it is time to stop, or so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


async def _received(door: Door, batch: int, stop: asyncio.Event) -> Sequence[Delivery]:
    """The next batch, or nothing when it is time to stop."""
    receiving = asyncio.ensure_future(door.receive(batch, _WAIT))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((receiving, stopping), return_when=asyncio.FIRST_COMPLETED)
        # Never cancelled: what it may be about to give us would be in nobody's hand.
        return await receiving
    finally:
        stopping.cancel()


async def _stored(
    accept: Accept,
    deliveries: Sequence[Delivery],
    confirmed: Sequence[int],
    stop: asyncio.Event,
    tally: Tally,
    coming: Callable[[Lane], None] | None = None,
) -> Stored | None:
    """Write the batch, however long the journal is away; None when told to stop meanwhile."""
    wait = _AGAIN[0]
    away = False
    while True:
        try:
            stored = await accept.batch(deliveries, confirmed, coming)
        except JournalAway as error:
            coming = None
            if not away:
                _log.error("the journal is away: intake waits", extra={"error": str(error)})
            away = True
            tally.set(families.INTAKE_AWAY, (), 1)
            await _stopped(stop, wait)
            if stop.is_set():
                return None
            wait = min(wait * 2, _AGAIN[1])
        else:
            tally.set(families.INTAKE_AWAY, (), 0)
            if away:
                _log.warning("the journal is back: intake goes on")
            return stored


def _count(tally: Tally, stored: Stored, seconds: float) -> None:
    tally.observe(families.INTAKE_BATCH, (), seconds)
    for result, number in (
        ("accepted", stored.accepted),
        ("repeated", stored.repeated),
        ("conflict", stored.conflicts),
        ("parked", stored.parked),
        ("command", stored.orders),
    ):
        tally.add(families.DELIVERIES, (result,), number)
