"""The loop that publishes: read the outbox, send, write down how far.

Owns the order of these, the waits, and what happens when the broker refuses one
producer's events or is away. Every intake process runs one, and every worker process as
a stand-in; one at a time publishes. Never holds a transaction while it sends, and never
keeps mail waiting.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from mailgate import failpoints
from mailgate.cancellation import heed
from mailgate.config.shape import Config
from mailgate.config.urls import mask
from mailgate.contract.event import UNKNOWN
from mailgate.events.document import Post, post
from mailgate.events.outlet import Outlet, OutletAway, is_amqp
from mailgate.journal.database import Connection, Database, JournalAway
from mailgate.journal.outbox import BATCH, Outbox, Told, free
from mailgate.log import where
from mailgate.metrics import families
from mailgate.metrics.tally import Tally
from mailgate.model.ids import spell

#: Seconds between two looks: while something goes on, when nothing has for a while, and
#: when there is so much that a larger batch is cheaper.
_LOOK, _SELDOM, _LARGER = 0.1, 0.25, 0.25
_A_WHILE = 5.0
_MUCH = 50
#: The lease (ms); it is renewed when so much is left (s), and others ask for it so often (s).
_SPAN, _RENEW, _ASK = 6000, 4.0, 1.0
#: A stand-in asks only when nobody else has published for so long (seconds).
PATIENT = 10.0
#: Waits after trouble: first and longest (seconds).
_AGAIN = (0.2, 1.0)
#: Seconds between two tries with a producer whose events are refused.
_REFUSED_AGAIN = 15.0

_log = logging.getLogger("mailgate.events")


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read: the posts to send, up to which event, and how many there were."""

    posts: tuple[Post, ...]
    reached: int
    read: int
    #: What no document could be made of, and why: nothing waits for it.
    unfit: tuple[tuple[Told, str], ...] = ()


def made(found: Iterable[Told], reached: int, read: int) -> Batch:
    """Documents of what was read; an event that none can be made of stands aside."""
    posts: list[Post] = []
    unfit: list[tuple[Told, str]] = []
    for told in found:
        try:
            posts.append(post(told))
        except Exception as error:  # noqa: BLE001 - a fault of ours; the others' news goes on
            unfit.append((told, where(error)))
    return Batch(tuple(posts), reached, read, tuple(unfit))


def outlet(config: Config) -> Outlet:
    """The way out that the configuration names; nothing is connected yet."""
    # Each imports its broker's client, and nobody needs both.
    url = config.events_url
    if is_amqp(url):
        from mailgate.events.rabbitmq import RabbitOutlet

        return RabbitOutlet(url)
    from mailgate.events.redis import RedisOutlet

    return RedisOutlet(url, config.events.max_length)


class Publisher:
    """Publishes when nobody else does.

    ``look`` is a connection to the journal that the process has anyway; one of its own is
    opened to publish by. ``patience`` is how long others may come first (seconds).
    """

    def __init__(
        self,
        config: Config,
        look: Database,
        *,
        tally: Tally | None = None,
        patience: float = 0.0,
        make: Callable[[Config], Outlet] = outlet,
    ) -> None:
        self._config = config
        self._look = look
        self._database = Database(config.journal.url or "")
        self._outbox = Outbox(self._database, secrets.randbits(62))
        self._tally = tally or Tally()
        self._patience = patience
        self._make = make
        #: Who is away: broker or journal; empty when all is well.
        self._away = ""
        #: Until when (monotonic) nobody else publishes.
        self._held = 0.0
        #: Producers whose events were refused: how far theirs are, and when to try again.
        self._behind: dict[str, int] = {}
        self._again: dict[str, float] = {}

    def adopt(self, config: Config) -> None:
        """Go by what another configuration says of producers; the way out stays."""
        self._config = config

    async def run(self) -> None:
        """Publish, or wait to, until cancelled; then the lease and the connection go back."""
        wait, longest = _AGAIN
        try:
            while True:
                heed()
                try:
                    reached = await self._turn()
                    await (self._publish if self._config.events.enabled else self._pass)(reached)
                except (JournalAway, OutletAway) as error:
                    self._trouble(error)
                    wait = min(2 * wait, longest) if self._away else _AGAIN[0]
                except Exception as error:  # noqa: BLE001 - mail goes on, and so do events
                    _log.error("publishing events failed, trying on", exc_info=error)
                    wait = longest
                await asyncio.sleep(wait)
        finally:
            if self._held:
                with suppress(JournalAway):
                    await self._database.run(self._outbox.let_go)
            self._database.close()

    async def _turn(self) -> int:
        """Wait for the lease; gives how far events are published."""
        free_since = None
        while True:
            heed()
            if self._patience and time.monotonic() > self._held:
                # A stand-in looks on until nobody has published for long.
                nobody = await self._look.read(lambda c: free(c, self._look.now()))
                free_since = (free_since or time.monotonic()) if nobody else None
            waited = free_since is not None and time.monotonic() - free_since >= self._patience
            if not self._patience or waited or time.monotonic() <= self._held:
                reached = await self._hold()
                if reached is not None:
                    return reached
                free_since = None
            await asyncio.sleep(_ASK)

    async def _hold(self) -> int | None:
        begun = time.monotonic()
        reached = await self._database.run(lambda c: self._outbox.hold(c, _SPAN))
        self._held = 0.0 if reached is None else begun + _SPAN / 1000
        return reached

    async def _publish(self, reached: int) -> None:
        """Until the lease is another's."""
        self._behind = await self._database.read(self._outbox.behind)
        out, busy = self._make(self._config), time.monotonic()
        try:
            await out.open()
            while True:
                heed()
                if self._held - time.monotonic() < _RENEW and await self._hold() is None:
                    return
                batch = await self._database.read(partial(self._batch, after=reached))
                if self._away == "journal":
                    self._well()
                if batch.read:
                    if not await self._send(out, reached, batch):
                        return
                    reached, busy = batch.reached, time.monotonic()
                    if batch.read == BATCH:
                        continue
                else:
                    await out.beat()
                for producer in [p for p in self._behind if self._due(p)]:
                    await self._catch_up(out, producer, reached)
                lately = time.monotonic() - busy < _A_WHILE
                wait = _LARGER if batch.read >= _MUCH else _LOOK
                await asyncio.sleep(wait if lately else _SELDOM)
        finally:
            await out.close()

    async def _send(self, out: Outlet, before: int, batch: Batch) -> bool:
        """Publish a batch and write it down; false when another publishes by now."""
        await self._set_aside(batch)
        refused: dict[str, int] = {}
        whose: frozenset[str | None] = frozenset()
        if batch.posts:
            begun = time.monotonic()
            failpoints.hit("events.before_send")
            whose = await out.send(batch.posts)
            failpoints.hit("events.before_mark")
            for post_ in reversed(batch.posts):
                if post_.producer in whose:
                    refused[post_.producer or UNKNOWN] = post_.number - 1
            self._well()
            self._tally.observe(families.EVENTS_BATCH, (), time.monotonic() - begun)
        begun = time.monotonic()
        kept = await self._database.run(
            lambda c: self._outbox.advance(c, before, batch.reached, _SPAN, refused)
        )
        failpoints.hit("events.written")
        self._held = begun + _SPAN / 1000
        for producer, after in refused.items():
            self._behind.setdefault(producer, after)
            self._again[producer] = time.monotonic() + _REFUSED_AGAIN
            _log.error(
                "the broker refuses the events of a producer: they wait, the others go on",
                extra={"producer": producer},
            )
        for kind, number in Counter(p.kind for p in batch.posts if p.producer not in whose).items():
            self._tally.add(families.EVENTS_PUBLISHED, (kind,), number)
        return kept

    def _batch(self, connection: Connection, after: int) -> Batch:
        found = self._outbox.next(connection, after)
        told = (
            told
            for told in found
            if self._wanted(told) and (told.producer or UNKNOWN) not in self._behind
        )
        return made(told, found[-1].id if found else after, len(found))

    async def _set_aside(self, batch: Batch) -> None:
        """Write down which events nobody is told of; again, should we die before the mark."""
        if not batch.unfit:
            return
        unfit = [(told.id, spell(told.message_id), why) for told, why in batch.unfit]
        await self._database.run(partial(self._outbox.set_aside, unfit=unfit))
        for number, message, why in unfit:
            _log.error(
                "no document can be made of an event: it is set aside, the others go on",
                extra={"event_number": number, "message_id": message, "error": why},
            )

    def _wanted(self, told: Told) -> bool:
        return self._config.tells(told.kind, told.producer)

    # --- producers whose events are refused ---------------------------------------------

    def _due(self, producer: str) -> bool:
        return time.monotonic() >= self._again.get(producer, 0.0)

    async def _catch_up(self, out: Outlet, producer: str, reached: int) -> None:
        """Try a batch of theirs; with all of it gone they are among the others again."""
        after = self._behind[producer]

        def read(connection: Connection) -> Batch:
            found = self._outbox.between(connection, after, reached)
            theirs = (t for t in found if (t.producer or UNKNOWN) == producer and self._wanted(t))
            return made(theirs, found[-1].id if found else reached, len(found))

        batch = await self._database.read(read)
        if batch.posts and await out.send(batch.posts):
            self._again[producer] = time.monotonic() + _REFUSED_AGAIN
            return
        await self._set_aside(batch)
        if batch.read < BATCH:
            work = self._outbox.caught_up
            await self._database.run(lambda c: work(c, producer, after, reached))
            del self._behind[producer]
            _log.info("the events of a producer are taken again", extra={"producer": producer})
            return
        await self._database.run(lambda c: self._outbox.catch_up(c, producer, after, batch.reached))
        self._behind[producer] = batch.reached

    # --- events switched off -----------------------------------------------------------------

    async def _pass(self, reached: int) -> None:
        """Nobody is told: what happens meanwhile is not told later either."""
        while not self._config.events.enabled:
            last = max(reached, await self._database.read(self._outbox.last))
            over = partial(self._outbox.advance, before=reached, reached=last, span=4 * _SPAN)
            if not await self._database.run(over):
                return
            reached = last
            await asyncio.sleep(_SPAN / 1000)

    # --- what is said ------------------------------------------------------------------------

    def _trouble(self, error: Exception) -> None:
        """One line an outage, not one a try."""
        what = "broker" if isinstance(error, OutletAway) else "journal"
        if self._away != what:
            _log.error(f"events wait: the {what} is away", extra={"error": mask(str(error))})
        self._away = what
        self._tally.set(families.EVENTS_AWAY, (), 1)

    def _well(self) -> None:
        if self._away:
            _log.warning("events go out again")
        self._away = ""
        self._tally.set(families.EVENTS_AWAY, (), 0)
