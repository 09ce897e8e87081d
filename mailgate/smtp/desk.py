"""The kept connections to one relay: how many, how old, and whose turn it is.

Owns their set-up, reuse and end. Knows nothing of messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mailgate.config.relays import Relay, Secret
from mailgate.model.outcome import Outcome, Reply, Scope, untouched
from mailgate.model.state import Phase
from mailgate.smtp.backoff import SetupBackoff
from mailgate.smtp.classify import Table
from mailgate.smtp.opening import SetupFailed, tls_context
from mailgate.smtp.seats import IDLE, PATIENCE, Entrance, Seats, none_free
from mailgate.smtp.session import Session

#: A connection idle for longer (seconds) is asked with RSET before it is used.
PROBE_AFTER = 2.0


@dataclass(frozen=True, slots=True)
class PoolStats:
    """One relay's connections now, and how its set-up goes.

    ``open`` counts connections being set up or ended too. ``failures`` are
    set-ups that failed in a row, ``last_failure`` why and ``error_class`` its short
    word, '' when the last one worked. ``backing_off`` is how long none is tried (seconds).
    """

    open: int
    busy: int
    idle: int
    waiting: int
    opened: int
    failures: int
    backing_off: float
    last_failure: str
    error_class: str


class Kept:
    """A session with what the desk knows about it."""

    __slots__ = ("expires", "idle_since", "messages", "session")

    def __init__(self, session: Session, expires: float, now: float) -> None:
        self.session = session
        self.expires = expires
        self.idle_since = now
        #: How many are on it, while it is in somebody's hand: one, or one more behind it.
        self.messages = 1


#: What a waiter is handed: a connection, a place for a new one (None), or bad news.
_Grant = Kept | Outcome | None


class Desk:
    """Connections to one relay; never more than ``max_connections``, ending ones counted."""

    def __init__(
        self,
        relay: Relay,
        password: Secret | None,
        clock: Callable[[], float],
        random: Callable[[], float],
        hostname: str | None,
        table: Table,
        seats: Seats | None = None,
    ) -> None:
        self._relay = relay
        self._password = password
        self._clock = clock
        self._hostname = hostname
        self._table = table
        self._tls: ssl.SSLContext | None = tls_context(relay)
        self._idle: list[Kept] = []
        self._busy: set[Kept] = set()
        self._riding = 0
        self._waiters: deque[asyncio.Future[_Grant]] = deque()
        self._endings: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()
        self._closing = False
        self._open = 0
        self._setting_up = 0
        #: Those of them that have no seat yet.
        self._asking = 0
        self._opened = 0
        self._backoff = SetupBackoff(random)
        self._entrance = Entrance(seats, clock, random)
        # Where others may be waiting for a seat, none is kept warm for long.
        self._idle_for = min(relay.idle, IDLE) if seats is not None else relay.idle
        self._again: asyncio.TimerHandle | None = None

    def read_by(self, table: Table) -> None:
        """Say by another table what refusals mean, on open connections too."""
        self._table = table
        for kept in (*self._idle, *self._busy):
            kept.session.read_by(table)

    @property
    def busy(self) -> int:
        """Messages that have a connection in hand."""
        return len(self._busy) + self._riding

    # --- taking -------------------------------------------------------------------

    async def take(self, *, fresh: bool = False) -> Kept | Outcome:
        """A connection ready for mail, or why there is none; first come, first served.

        What is taken has to be given back. ``fresh`` asks for a new connection
        where there can be one.
        """
        patience = asyncio.get_running_loop().time() + PATIENCE
        while not self._closing:
            if fresh and self._idle and self._open >= self._relay.max_connections:
                # The oldest makes room: it is likely as dead as the one just met.
                self._idle.pop(0).session.abort()
                self._vacate()
            grant: _Grant = None
            if self._waiters:
                grant = await self._wait(patience)
            elif self._idle and not fresh:
                grant = self._idle.pop()
                self._busy.add(grant)
            elif self._may_open():
                self._reserve()
            elif self._blocked() and not self._busy:
                return self._backoff.answer(self._clock())
            else:
                grant = await self._wait(patience)
            if isinstance(grant, Outcome):
                return grant
            if grant is None:
                made = await self._set_up()
                if made is None:
                    # Others have all seats: wait for one of theirs, or of our own.
                    fresh = False
                    continue
                if isinstance(made, Kept) or not self._busy:
                    return made
                # Others are connected, so the relay takes mail: wait for one of them.
                fresh = False
            elif await self._usable(grant):
                return grant
        return _shutting_down()

    async def _wait(self, patience: float) -> _Grant:
        """Until it is our turn; where others may hold the seats, no longer than ``patience``."""
        if not self._entrance.shared:
            return await self._turn()
        try:
            async with asyncio.timeout_at(patience):
                return await self._turn()
        except TimeoutError:
            return none_free()

    async def _turn(self) -> _Grant:
        turn: asyncio.Future[_Grant] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled() or not turn.done():
                # Whoever served the queue meanwhile may have dropped it already.
                with contextlib.suppress(ValueError):
                    self._waiters.remove(turn)
                raise
            granted = turn.result()
            if granted is None:
                self._unreserve()
                self._free()
            elif isinstance(granted, Kept):
                self.give_back(granted)
            raise

    async def _usable(self, kept: Kept) -> bool:
        session, now = kept.session, self._clock()
        if now >= kept.expires:
            session.abort()
        elif session.alive and (session.dirty or now - kept.idle_since > PROBE_AFTER):
            try:
                await session.reset()
            except BaseException:
                self.give_back(kept)
                raise
        if session.alive:
            return True
        self.give_back(kept)
        return False

    # --- setting up -----------------------------------------------------------------

    def _reserve(self) -> None:
        self._open += 1
        self._setting_up += 1
        self._asking += 1

    def _unreserve(self) -> None:
        """Take back what was reserved and has no seat, but for its place."""
        self._setting_up -= 1
        self._asking -= 1

    def _blocked(self) -> bool:
        """Whether no new connection may be tried now."""
        return self._backoff.blocks(self._clock(), self._setting_up)

    def _may_open(self) -> bool:
        if self._open >= self._relay.max_connections or self._blocked():
            return False
        if self._entrance.wait:
            self._ask_again()
            return False
        if self._entrance.shared and self._asking:
            # One at a time: where it finds no seat, neither would the others.
            return False
        # The first one shows whether the relay is there and takes our password: a
        # dozen refused at once could lock the account.
        return self._opened > 0 or self._setting_up == 0

    def _ask_again(self) -> None:
        """Look after those who wait when seats may be free again."""
        if self._again is None:
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(max(self._entrance.wait, 0.01), self._asked_again)

    def _asked_again(self) -> None:
        self._again = None
        self._serve()

    async def _set_up(self) -> Kept | Outcome | None:
        """Open a connection in a reserved place; None when there is no seat for it."""
        try:
            seated = await self._entrance.enter()
        except BaseException:
            self._unreserve()
            self._free()
            raise
        if not seated:
            self._unreserve()
            self._free()
            return None
        self._asking -= 1
        self._serve()
        try:
            session = await Session.open(
                self._relay,
                self._tls,
                password=self._password,
                hostname=self._hostname,
                table=self._table,
            )
        except SetupFailed as failure:
            self._setting_up -= 1
            self._backoff.failed(failure.outcome, self._clock())
            self._vacate()
            return failure.outcome
        except BaseException:
            self._setting_up -= 1
            self._vacate()
            raise
        self._setting_up -= 1
        self._backoff.succeeded()
        self._opened += 1
        now = self._clock()
        kept = Kept(session, now + self._relay.max_age * self._backoff.jitter(), now)
        self._busy.add(kept)
        self._serve()
        return kept

    def turned_away(self, outcome: Outcome) -> None:
        """The relay would not have us as we are, and would not on a new connection."""
        self._backoff.failed(outcome, self._clock())

    # --- one behind another -------------------------------------------------------

    def takes_another(self, kept: Kept) -> bool:
        """Whether one more message may go out on it before it is given back."""
        return not (
            self._closing
            # Whoever waits here was there first.
            or self._waiters
            or kept.session.served >= self._relay.messages_per_connection
            or self._clock() >= kept.expires
        )

    def join(self, kept: Kept) -> None:
        """One more message is on it, to be given back by each."""
        kept.messages += 1
        self._riding += 1

    # --- giving back --------------------------------------------------------------

    def give_back(self, kept: Kept) -> bool:
        """Done with it, in whatever state it is; false where somebody else is on it still."""
        if kept.messages > 1:
            kept.messages -= 1
            self._riding -= 1
            return False
        session, now = kept.session, self._clock()
        if not session.alive:
            self._busy.discard(kept)
            self._vacate()
        elif (
            self._closing
            or session.served >= self._relay.messages_per_connection
            or now >= kept.expires
        ):
            self._busy.discard(kept)
            self._let_go(kept)
        else:
            kept.idle_since = now
            if not self._answer(kept):
                self._busy.discard(kept)
                self._idle.append(kept)
                self._watch_idle()
            self._serve()
        return True

    def _vacate(self) -> None:
        """A connection is gone: its place goes to whoever waits."""
        self._entrance.leave()
        self._free()

    def _free(self) -> None:
        self._open -= 1
        self._serve()

    def _serve(self) -> None:
        """Give those who wait a place for a new connection, or the news that there is none."""
        if self._closing and not self._open:
            self._drained.set()
        while self._waiters:
            if self._may_open():
                self._reserve()
                self._answer(None)
            elif self._blocked() and not self._busy:
                self._answer(self._backoff.answer(self._clock()))
            else:
                return  # theirs when a connection comes back

    def _answer(self, grant: _Grant) -> bool:
        """Hand something to the first who waits; false when nobody does."""
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(grant)
                return True
        if grant is None:
            self._unreserve()
            self._open -= 1
        return False

    def _let_go(self, kept: Kept) -> None:
        """QUIT in the background; the place stays taken until that is over."""
        task = asyncio.get_running_loop().create_task(self._end(kept))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _end(self, kept: Kept) -> None:
        try:
            await kept.session.quit()
        finally:
            self._vacate()

    def _watch_idle(self) -> None:
        if self._reaper is None and self._idle:
            oldest = min(kept.idle_since for kept in self._idle)
            wait = max(oldest + self._idle_for - self._clock(), 0.05)
            self._reaper = asyncio.get_running_loop().call_later(wait, self._reap)

    def _reap(self) -> None:
        """Let go of what has been idle for too long, or has died meanwhile."""
        self._reaper = None
        now, idle, self._idle = self._clock(), self._idle, []
        for kept in idle:
            if not kept.session.alive:
                self._vacate()
            elif now - kept.idle_since >= self._idle_for or now >= kept.expires:
                self._let_go(kept)
            else:
                self._idle.append(kept)
        self._watch_idle()

    # --- the end --------------------------------------------------------------------

    async def close(self, grace: float) -> None:
        """Take nothing more; QUIT what is idle; abort what still runs after ``grace``."""
        self._closing = True
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        if self._again is not None:
            self._again.cancel()
        while self._answer(_shutting_down()):
            pass
        idle, self._idle = self._idle, []
        for kept in idle:
            self._let_go(kept)
        if self._open:
            try:
                async with asyncio.timeout(grace):
                    await self._drained.wait()
            except TimeoutError:
                for kept in self._busy:
                    kept.session.abort()
                endings = tuple(self._endings)
                for task in endings:
                    task.cancel()
                await asyncio.gather(*endings, return_exceptions=True)
        await self._entrance.drain()

    def stats(self) -> PoolStats:
        """How things stand now."""
        last = self._backoff.last
        return PoolStats(
            open=self._open,
            busy=len(self._busy),
            idle=len(self._idle),
            waiting=len(self._waiters),
            opened=self._opened,
            failures=self._backoff.failures,
            backing_off=self._backoff.left(self._clock()),
            last_failure=f"{last.error_class}: {last.reply}" if last else "",
            error_class=last.error_class if last else "",
        )


def _shutting_down() -> Outcome:
    return untouched(Phase.CONNECT, Reply(0, "shutting down"), "shutting_down", Scope.CONNECTION)
