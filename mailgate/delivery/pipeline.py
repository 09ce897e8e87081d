"""One process's conversations: take ▶ render ▶ send ▶ settle.

Owns the free places, the outcomes that wait to be written, and the marker of
each conversation. Never chooses what goes (``dispatch``) or what follows from an
outcome (``delivery.retry``).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from mailgate import failpoints
from mailgate.config.shape import Config
from mailgate.config.streams import Stream
from mailgate.delivery.alone import OneByOne
from mailgate.delivery.conversation import Marks, Permit, Render, Send, Trouble, converse
from mailgate.delivery.lease import ProcessLease
from mailgate.delivery.retry import settle
from mailgate.delivery.room import Hold, Room
from mailgate.delivery.turns import Ended, given_back, moved_on, routed, unjudged
from mailgate.dispatch.flow import Open
from mailgate.dispatch.lanes import kept_for_urgent
from mailgate.dispatch.take import Take, Taken, Taker
from mailgate.journal.breakers import Change
from mailgate.journal.database import Connection, Database, JournalAway
from mailgate.journal.leases import claimed_by
from mailgate.journal.settling import Settlement, Settling
from mailgate.limits.rules import Limiter
from mailgate.metrics import families
from mailgate.metrics.tally import Tally
from mailgate.model.message import Claim
from mailgate.model.outcome import Outcome
from mailgate.model.state import RING_AHEAD, Lane
from mailgate.model.value import replace

#: A busy process takes again when half its places are free, or after this (seconds):
#: so that transactions carry many and a waiting message still waits for nobody.
TURN = 0.02
#: While so large a share of its places wait for a connection, no turn is hurried: a
#: transaction then carries many more, and no connection is idle meanwhile.
QUEUEING = 0.1
#: How often a process with open conversations and free places looks again (seconds).
LOOK = 0.1
#: The same while a limit paces all that is open: permits are asked for further ahead.
PACED = 0.2
#: A ring may be ahead of its mail (``RING_AHEAD``): no task ends before this, and as long as it
#: has found nothing it looks so often; later so often (seconds).
EXPECT, EXPECTING, WORKED = RING_AHEAD + 0.003, 0.001, 0.003
#: A limit that opens within this is waited for in the task (seconds).
NEAR = 0.5
#: More work than places is said to others at once, and then so often (seconds).
HELP = 0.2
#: With fewer of its places free than this share, none is kept by who waits in vain.
NEEDED = 0.25
#: What could not be written is tried again after this, and twice as long each time (seconds).
AGAIN, AGAIN_MOST = 0.25, 2.0
#: How long a process holds back for a suspect before it works on (seconds).
DRAIN = 2.0

#: For mail of a stream that was taken out of the configuration.
_NO_STREAM = Stream()


class Pipeline:
    def __init__(
        self,
        config: Config,
        database: Database,
        settling: Settling,
        taker: Taker,
        limiter: Limiter,
        lease: ProcessLease,
        render: Render,
        send: Send,
        random: Callable[[], float],
        report: Callable[[Sequence[Ended]], None],
        tell: Callable[[Sequence[Change]], None],
        trouble: Trouble,
        tally: Tally,
        talking: Callable[[], int],
        whole: Callable[[Connection, Claim], Claim],
    ) -> None:
        """``talking`` gives how many conversations have a connection in hand; ``whole`` reads
        what a claim lacks."""
        self._config = config
        self._database = database
        self._settling = settling
        self._taker = taker
        self._limiter = limiter
        self._lease = lease
        self._render = render
        self._send = send
        self._random = random
        self._report = report
        self._tell = tell
        self._trouble = trouble
        self._tally = tally
        self._talking = talking
        self._whole = whole
        self._held = Room(config.worker.attachment_bytes)
        self._open: dict[asyncio.Task[None], Open] = {}
        # How far those of them are that have begun.
        self._marks: dict[asyncio.Task[None], Marks] = {}
        self._reserved = kept_for_urgent(config.worker.conversations, config.worker.reserved)
        self._ended: list[Ended] = []
        self._alone = OneByOne(database, settling, trouble)
        # Recipients in open conversations, by id and token.
        self._claimed: set[tuple[int, int]] = set()
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        # Held while a turn is at the journal, also one whose task was interrupted.
        self._turn = asyncio.Lock()
        # The last turn moved something on: there may be more behind it.
        self._look_again = False
        self._stopping = False
        self._hold_until = 0.0
        self._hold_again = 0.0
        self._flush: asyncio.Task[None] | None = None
        # A limit closed a bucket at the last take.
        self._paced = False
        # Some wait for a place in a destination: who ends may make one.
        self._crowded = False
        # Conversations with relays that answer nobody now, as the last take saw it.
        self._silent = 0
        # A transaction of ours ended in an unknown way: it may have claimed for us.
        self._doubt = False

    def adopt(self, config: Config) -> None:
        """Go by another configuration, from the next turn on; its places stay as many."""
        self._config = config
        self._taker.adopt(config)

    @property
    def conversations(self) -> int:
        return len(self._open)

    async def run(
        self, lanes: Sequence[Lane], deadline: float, call_help: Callable[[], None]
    ) -> tuple[Counter[str], bool]:
        """Keep the places filled from ``lanes`` until ``deadline`` (monotonic) or nothing is due.

        ``call_help`` is called while more is due than there are places. Gives the
        counts of what was settled, and whether due work is left. Conversations
        still open at the deadline stay open.
        """
        counts: Counter[str] = Counter()
        more = worked = False
        call_at = 0.0
        expects = time.monotonic() + EXPECT
        try:
            async with self._one_at_a_time:
                while not self._stopping and time.monotonic() < deadline:
                    try:
                        # Shielded: what it claims must be sent, whoever loses patience.
                        take = await asyncio.shield(self._take(lanes, counts))
                    except JournalAway as error:
                        self._trouble("the journal is away", error)
                        await asyncio.sleep(0.5)
                        continue
                    self._paced = take.again_in is not None
                    self._crowded = take.crowded
                    more = take.more or bool(take.taken)
                    # Where a limit paces it, nobody else could go faster.
                    if take.more and take.again_in is None and time.monotonic() >= call_at:
                        call_help()
                        call_at = time.monotonic() + HELP
                    wait = self._next_look(take)
                    worked = worked or bool(take.taken)
                    if wait != 0.0 and not take.taken and time.monotonic() < expects:
                        # Whatever else waits or is paced: that it was rung for may be to come.
                        await asyncio.sleep(WORKED if worked else EXPECTING)
                        continue
                    if wait is None:
                        more = False
                        break
                    await self._pause(deadline, wait)
        finally:
            self._flush_later()
        return counts, more and not self._stopping

    def _next_look(self, take: Take) -> float | None:
        """Seconds until the next turn at the latest; None when there is nothing to stay for."""
        paced = take.again_in is not None and all(t.permit is not None for t in take.taken)
        if take.taken and not paced:
            # What is rendered and sent now is settled by the next turn.
            return TURN
        if self._look_again or (self._ended and not self._open):
            return 0.0
        if paced and (self._open or (take.again_in or 0.0) <= NEAR):
            # Permits are had far ahead of their moments: whoever comes a little later for the
            # next loses none of the rate, and finds several.
            return PACED
        if self._open:
            return LOOK
        # Long closed or nothing due: the worker's own look each second finds it.
        return None

    def _room(self) -> int:
        if time.monotonic() < self._hold_until:
            return 0
        places = self._config.worker.conversations - len(self._open)
        return max(0, min(places, self._lease.spool.room))

    async def _take(self, lanes: Sequence[Lane], counts: Counter[str]) -> Take:
        """One turn at the journal; without ``lanes`` it only settles."""
        async with self._turn:
            try:
                return await self._take_alone(lanes, counts)
            except BaseException:
                # It may be committed: what it claimed and has not begun is given back.
                self._doubt = True
                if not self._one_at_a_time.locked():
                    # Whoever began this has been interrupted: nobody else tries again.
                    self._flush_later()
                raise

    async def _take_alone(self, lanes: Sequence[Lane], counts: Counter[str]) -> Take:
        batch, self._ended = self._ended, []
        begun = time.monotonic()
        try:
            if batch:
                failpoints.hit("settle.begin")
            if self._doubt:
                await self._give_back(batch)
            take = await self._taker.take(
                want=self._room() if lanes else 0,
                lanes=lanes,
                lease=self._lease.id,
                settlements=[e.settlement for e in batch],
                of=self._lease.of,
                place=self._lease.place,
                busy=bool(self._open),
                open_=self._open.values(),
                kept=max(
                    0,
                    self._reserved - sum(x.claim.lane is Lane.HIGH for x in self._open.values()),
                ),
            )
        except BaseException:
            # Whatever it was, these outcomes are not known to be written.
            self._ended = batch + self._ended
            raise
        seconds = time.monotonic() - begun
        try:
            if batch:
                failpoints.hit("settle.after_commit")
            if take.taken:
                failpoints.hit("take.claimed")
        finally:
            # Before all else that may fail: these outcomes are in the journal.
            for ended in batch:
                self._over(ended)
        self._came(take, batch, counts, seconds)
        return take

    def _came(
        self, take: Take, batch: Sequence[Ended], counts: Counter[str], seconds: float
    ) -> None:
        """What follows from a turn that is in the journal."""
        self._tally.observe(families.TURN, (), seconds)
        self._look_again = moved_on(take, batch, self._database.now())
        told, now = [], time.monotonic()
        for ended in batch:
            written = ended.settlement.recipient_id in take.turn.settled
            counts[ended.kind.value if written else "stale"] += 1
            if written:
                told.append(ended)
        if take.turn.expired:
            counts["expired"] += take.turn.expired
            self._tally.add(families.EXPIRED, (), take.turn.expired)
        if take.turn.suppressed:
            counts["suppressed"] += take.turn.suppressed
            self._tally.add(families.SUPPRESSED, (), take.turn.suppressed)
        for _, dropped in take.turn.waiting:
            counts["throttled" if dropped else "waiting"] += 1
            self._tally.add(families.THROTTLED, ("dropped" if dropped else "waits",))
        for taken in take.taken:
            self._claimed.add((taken.claim.recipient_id, taken.claim.token))
            task = asyncio.create_task(self._converse(taken))
            self._open[task] = Open(taken.claim, now, taken.permit is not None)
            task.add_done_callback(self._done)
        if told:
            self._report(told)
        if take.turn.changes:
            self._tell(take.turn.changes)
        self._hold_back(take)
        self._silent = take.silent
        places = self._config.worker.conversations
        if take.stuck and places - len(self._open) < places * NEEDED:
            self._make_room(take)

    async def _give_back(self, batch: Sequence[Ended]) -> None:
        """After a transaction of unknown end: queue again what it claimed without our knowing.

        No other turn of ours is under way, so whatever we know is claimed is in one of
        these places. By token: an earlier claim of the same recipient may wait in ``batch``.
        """
        known = self._claimed | {(e.claim.recipient_id, e.claim.token) for e in batch}
        held = await self._database.read(lambda c: claimed_by(c, self._lease.id))
        now = self._database.now()
        strays = given_back((o for o in held if (o.recipient_id, o.token) not in known), now)
        if strays:
            await self._database.run(lambda c: self._settling.write(c, strays, now))
        self._doubt = False

    def _make_room(self, take: Take) -> None:
        """Give back who waits for nothing: a relay, or a destination, that answers nobody."""
        past = {
            self._open[task].claim.recipient_id
            for task, marks in self._marks.items()
            if marks.past_dot
        }
        stuck = self._taker.flow.in_vain(
            list(self._open.values()), take.stuck, time.monotonic(), past
        )
        vain = {one.claim.recipient_id for one in stuck}
        for task, one in self._open.items():
            if one.claim.recipient_id in vain:
                task.cancel()

    def _hold_back(self, take: Take) -> None:
        """Let the open conversations end when a suspect must be claimed alone."""
        now = time.monotonic()
        if any(t.alone for t in take.taken):
            self._hold_until = now + self._config.worker.lease
        elif not self._open:
            self._hold_until = 0.0
        elif take.suspects and now > self._hold_again:
            self._hold_until = now + DRAIN
            self._hold_again = now + 5 * DRAIN

    def _done(self, task: asyncio.Task[None]) -> None:
        self._open.pop(task, None)
        self._marks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its recipient stays claimed, and its marks tell the truth when we are buried.
            self._trouble("a conversation ended without an outcome", error)
        if not self._open:
            self._hold_until = 0.0
        # Paced conversations end one by one, and would settle one by one: they wait for
        # the next look. Otherwise what ends makes place, and is written at once when idle.
        half = self._config.worker.conversations // 2
        half_free = len(self._open) <= half and not self._paced
        if not self._open or self._crowded or (half_free and not self._queueing()):
            self._wake.set()
        if not self._one_at_a_time.locked():
            self._flush_later()

    async def _pause(self, deadline: float, at_most: float) -> None:
        wait = min(deadline - time.monotonic(), at_most)
        if self._ended and not self._open:
            return
        self._wake.clear()
        most = time.monotonic() + min(deadline - time.monotonic(), LOOK)
        while wait > 0 or not self._wake.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.001, wait)):
                    await self._wake.wait()
                return
            wait = min(TURN, most - time.monotonic())
            if wait <= 0 or self._hold_until or not self._queueing():
                return

    def _queueing(self) -> bool:
        """Whether conversations wait for a connection: those who talk lack no work."""
        waiting = len(self._open) - self._talking() - self._silent
        return waiting > self._config.worker.conversations * QUEUEING

    # --- one conversation --------------------------------------------------------

    async def _converse(self, taken: Taken) -> None:
        claim = taken.claim
        begun = time.monotonic()
        started = self._database.now()
        slot = self._lease.spool.take(claim.recipient_id, claim.token)
        marks = Marks(self._lease, slot)
        task = asyncio.current_task()
        assert task is not None
        self._marks[task] = marks
        permit = None
        if taken.permit is not None:
            ask = partial(self._taker.renewed, taken.permit.ask)
            permit = Permit(taken.permit.grant, ask, self._limiter)
        hold = Hold(self._held)
        outcome, content = await converse(
            claim,
            permit,
            marks,
            self._render,
            self._send,
            self._trouble,
            self._config.sandbox,
            partial(self._fetch, hold),
        )
        try:
            settlement = self._judged(taken, outcome, started, content)
        except Exception as error:  # noqa: BLE001 - a bug must not leave it claimed for ever
            self._trouble("what follows from an outcome failed in mailgate itself", error)
            settlement = unjudged(claim, outcome, marks.past_dot, self._database.now())
        self._claimed.discard((claim.recipient_id, claim.token))
        took = int((time.monotonic() - begun) * 1000)
        self._ended.append(Ended(settlement, outcome.kind, slot, claim, outcome, took, hold))
        if settlement.stored is None:
            hold.release()

    async def _fetch(self, hold: Hold, claim: Claim) -> Claim:
        """With the journal away it waits: nothing could be settled either."""
        await hold.take(claim.unread, urgent=claim.lane is Lane.HIGH)
        while True:
            try:
                return await self._database.read(lambda c: self._whole(c, claim))
            except JournalAway as error:
                self._trouble("the journal is away", error)
                await asyncio.sleep(0.5)

    def _judged(
        self, taken: Taken, outcome: Outcome, started: int, content: bytes | None
    ) -> Settlement:
        """What follows from an outcome, for the recipient and for what it showed of others."""
        claim = taken.claim
        preferred: tuple[str, ...] = ()
        if claim.stream in self._config.streams:
            preferred = self._config.route(claim.stream)
        settlement = settle(
            claim,
            outcome,
            stream=self._config.streams.get(claim.stream, _NO_STREAM),
            bucket=routed(taken.bucket, claim.relay),
            preferred=preferred,
            started_at=started,
            now=self._database.now(),
            random=self._random,
            content=content if claim.stored is None and not claim.rendered else None,
            suppressions=self._config.suppressions,
        )
        signals = self._taker.witness.showed(claim, outcome, taken.probes, time.monotonic())
        return replace(settlement, signals=signals) if signals else settlement

    # --- outside of a task ------------------------------------------------------------

    def _flush_later(self) -> None:
        if not (self._ended or self._doubt) or self._stopping:
            return
        if self._flush is None or self._flush.done():
            self._flush = asyncio.get_running_loop().create_task(self.flush())

    async def flush(self) -> None:
        """Write the outcomes of conversations that outlived their task, and give back strays.

        Again and again until it is done, by whomever: perhaps nothing else falls due here.
        """
        pause = AGAIN
        while (self._ended or self._doubt) and not self._stopping:
            async with self._one_at_a_time:
                # What stops meanwhile settles by itself.
                if self._stopping or await self._written():
                    continue
            # Not with the lock in hand: a task's own turn does the same.
            await asyncio.sleep(pause)
            pause = min(2 * pause, AGAIN_MOST)

    async def _written(self) -> bool:
        """A turn that only settles: whether it came to its end."""
        try:
            await self._take((), Counter())
        except JournalAway as error:
            self._trouble("the journal is away", error)
        except Exception as error:  # noqa: BLE001 - what is not written is tried again
            self._trouble("outcomes could not be written", error)
            async with self._turn:
                await self._alone.write(self._ended, self._over_alone)
        else:
            self._alone.forget()
            return True
        return False

    def _over(self, ended: Ended) -> None:
        """What it held is free: the journal has it, or another's word about it."""
        self._lease.spool.free(ended.slot)
        if ended.hold is not None:
            ended.hold.release()

    def _over_alone(self, ended: Ended, ours: bool) -> None:
        self._over(ended)
        if ours:
            self._report([ended])

    async def stop(self, grace: float) -> None:
        """End: no more takes, up to ``grace`` seconds for what is open, then settle all."""
        self._stopping = True
        self._wake.set()
        deadline = time.monotonic() + max(grace, 5.0)
        with suppress(TimeoutError):
            # What a turn under way claims is open after it.
            async with asyncio.timeout(max(grace, 5.0)), self._turn:
                pass
        if self._open:
            await asyncio.wait(self._open, timeout=grace)
        await self.abort()
        deadline = max(deadline, time.monotonic() + 5.0)
        while (self._ended or self._doubt) and time.monotonic() < deadline:
            if not await self._written():
                await asyncio.sleep(0.2)

    async def abort(self) -> None:
        """Cancel every open conversation; before the dot nothing is sent, after it is uncertain."""
        # One that has not begun yet would never begin, and have no outcome.
        await asyncio.sleep(0)
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=5.0)

    @property
    def unsettled(self) -> int:
        """Outcomes, conversations and turns whose end the journal does not know."""
        return len(self._ended) + len(self._open) + self._turn.locked() + self._doubt
