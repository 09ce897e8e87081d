"""The bridge between Celery's threads and asyncio: one event loop a process.

Owns the thread of the loop, the gateway that lives on it, the look at the journal
once a second, work without a task while no ring is heard, and the orderly end.
Conversations stay on the loop between two tasks. Never knows Celery, a broker or SMTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from typing import NoReturn, Protocol

from mailgate.model.state import Lane

log = logging.getLogger(__name__)

#: Exit code of a process whose loop died (EX_SOFTWARE of sysexits.h).
_LOOP_DIED = 70

#: Seconds between two looks at the journal, and the share by which they differ.
_LOOK = 1.0
_JITTER = 0.1

#: The share of it that is always waited, though something falls due before.
_LEAST = 0.25

#: Seconds until opening is tried again: the first wait, and the longest.
_REOPEN = (0.5, 4.0)

#: Seconds that an interrupted task waits for its conversations to be let go.
LET_GO = 5.0


class Delivers(Protocol):
    """What a worker process drives; every method is called on the process's one loop."""

    async def start(self) -> None:
        """Open the journal, the lease and the pools; called once.

        When it raises, nothing of it is left behind: another gateway is made.
        """

    async def deliver(self, lane: Lane, deadline: float) -> dict[str, int]:
        """Work until ``time.monotonic() >= deadline`` or nothing is due; returns counts."""

    async def due(self) -> frozenset[Lane]:
        """The lanes with something due now: one cheap look at the journal."""

    async def until_due(self, most: float) -> float:
        """Seconds until something falls due that is not due now; at most ``most``."""

    async def stop(self, grace: float) -> None:
        """Let conversations end for ``grace`` seconds, abort the rest, give back the lease."""


class DeliveryFailed(Exception):
    """A delivery task ended in an error.

    Names the error's type alone: its text may hold an address, and Flower shows the
    text of a task's exception to whoever looks.
    """


class GatewayClosed(DeliveryFailed):
    """The process's gateway was not open before the task's deadline, or is closing."""


class Bridge:
    """One event-loop thread with a gateway on it.

    ``make`` builds the gateway, on the loop; ``ring`` asks for a task of a lane.
    ``deadline`` is how long a task works, ``overdue`` when a thread no longer waits
    for it, both in seconds from its start. ``lanes`` are those that the process works on,
    ``unheard`` says whether the last ring reached nobody: from then on what is due is worked
    on without a task, one piece of work at a time, until a task comes.
    """

    def __init__(
        self,
        make: Callable[[], Delivers],
        ring: Callable[[Lane], None],
        *,
        deadline: float,
        overdue: float,
        lanes: Collection[Lane] = tuple(Lane),
        unheard: Callable[[], bool] = lambda: False,
        look: float = _LOOK,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._make = make
        self._ring = ring
        self._deadline = deadline
        self._overdue = overdue
        self._lanes = frozenset(lanes)
        self._unheard = unheard
        self._look = look
        self._chance = chance
        self._loop = asyncio.new_event_loop()
        self._opened = asyncio.Event()
        self._ending = asyncio.Event()
        self._grace = 0.0
        self._gateway: Delivers | None = None
        self._busy: Counter[Lane] = Counter()
        self._alone: asyncio.Task[None] | None = None
        # Nobody has sent a task since a ring was not heard. That one is heard again says
        # little: the worker's main process may be half a minute from its next try to connect.
        self._deserted = False
        self._away = False
        self._may_end = False
        self._thread = threading.Thread(target=self._run, name="event-loop", daemon=True)

    def start(self) -> None:
        """Start the loop's thread; returns at once, while the gateway opens."""
        self._thread.start()

    def deliver(self, lane: Lane) -> dict[str, int]:
        """Run one delivery task and wait for it; returns its counts.

        Raises ``GatewayClosed`` when there is no open gateway, ``DeliveryFailed`` when it
        raised, ``TimeoutError`` when it is overdue. Whatever interrupts the waiting
        thread (a soft time limit, the end of the process) cancels the task and is
        raised on.
        """
        if self._may_end:
            raise GatewayClosed("the process is stopping")
        self._deserted = False
        over = threading.Event()
        work = self._deliver(lane, time.monotonic() + self._deadline, over)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(self._overdue)
        except DeliveryFailed:
            raise
        except BaseException:
            future.cancel()
            # The next task may not begin beside the rest of this one.
            over.wait(LET_GO)
            raise

    def stop(self, grace: float) -> None:
        """Stop the gateway within about ``grace`` seconds and end the thread."""
        self._may_end = True
        if not self._thread.is_alive():
            return
        self._grace = grace
        with contextlib.suppress(RuntimeError):  # the loop closed in between
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(grace + LET_GO)
        if self._thread.is_alive():
            log.error("the event loop did not end within %.0f s", grace + LET_GO)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._live())
        except BaseException as error:  # noqa: BLE001 - SystemExit, MemoryError: all are its death
            log.critical("the event loop died: %s", _where(error))
        finally:
            if not self._may_end:
                _end_process()

    async def _live(self) -> None:
        if not await self._open():
            return
        assert self._gateway is not None
        while not self._ending.is_set():
            await self._look_once(self._gateway)
            most = self._look * (1 + _JITTER * (2 * self._chance() - 1))
            await self._pause(await self._until_due(self._gateway, most))
        await self._gateway.stop(self._grace)

    async def _until_due(self, gateway: Delivers, most: float) -> float:
        """Until the next look: what falls due before it is not kept waiting for it."""
        try:
            # Where something falls due all the time, not all the time is spent looking.
            return max(await gateway.until_due(most), _LEAST * most)
        except Exception:  # noqa: BLE001 - the look that follows says what is wrong
            return most

    async def _open(self) -> bool:
        """Open the gateway, however long the journal is away; False when told to end."""
        wait, longest = _REOPEN
        said = ""
        while not self._ending.is_set():
            try:
                gateway = self._make()
                await gateway.start()
            except Exception as error:  # noqa: BLE001 - whatever keeps it shut, try on
                # No mail was touched yet, so that the text may be shown.
                if str(error) != said:
                    log.error("the gateway does not open, trying on: %s\n%s", error, _where(error))
                said = str(error) or type(error).__name__
                await self._pause(wait)
                wait = min(2 * wait, longest)
            else:
                if said:
                    log.info("the gateway is open")
                self._gateway = gateway
                self._opened.set()
                return True
        return False

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    async def _look_once(self, gateway: Delivers) -> None:
        """Ring for what is due in lanes that this process does not work on already."""
        try:
            lanes = await gateway.due()
        except Exception as error:  # noqa: BLE001 - one bad look may not end the looking
            if not self._away:
                log.warning("cannot look at the journal, looking on: %s", _where(error))
            self._away = True
            return
        if self._away:
            log.info("the journal is back")
        self._away = False
        idle = [lane for lane in Lane if lane in lanes and not self._busy[lane]]
        for lane in idle:
            self._ring(lane)
        self._deserted = self._deserted or self._unheard()
        own = [lane for lane in idle if lane in self._lanes]
        alone = self._alone
        if (
            own
            and self._deserted
            and (alone is None or alone.done() or alone is asyncio.current_task())
        ):
            # The last is the lowest, and a delivery works on those above its lane too.
            self._alone = asyncio.create_task(self._deliver_alone(own[-1]))

    async def _deliver_alone(self, lane: Lane) -> None:
        """Without a task: what is in the journal needs no broker to be sent."""
        try:
            async with asyncio.timeout(self._overdue):
                await self._deliver(lane, time.monotonic() + self._deadline, threading.Event())
        except DeliveryFailed:
            pass  # it is in the log
        except TimeoutError:
            log.error("work on lane %s without a task was overdue, and is given up", lane.value)

    async def _deliver(self, lane: Lane, deadline: float, over: threading.Event) -> dict[str, int]:
        self._busy[lane] += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._opened.wait()
            if self._gateway is None or self._ending.is_set():
                raise GatewayClosed("the gateway is not open")
            counts = await self._gateway.deliver(lane, deadline)
        except DeliveryFailed:
            raise
        except Exception as error:  # noqa: BLE001 - its text may not reach Flower
            log.error("deliver(%s) failed: %s", lane.value, _where(error))
            raise DeliveryFailed(type(error).__name__) from None
        finally:
            self._busy[lane] -= 1
            over.set()
        if time.monotonic() >= deadline and not self._ending.is_set():
            await self._look_once(self._gateway)
        return counts


def _where(error: BaseException) -> str:
    """An error's type and the lines it came from, without its text, which may hold data."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__}\n{frames}".rstrip()


def _end_process() -> NoReturn:
    """End the process at once: without its loop it can only lose time.

    The main thread may be waiting in a read that nothing interrupts. What this
    process had claimed is recovered like that of any dead process.
    """
    os._exit(_LOOP_DIED)
