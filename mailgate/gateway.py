"""Where the objects meet: a configuration and a bell become a working process.

Owns the life of one worker process: opening, heartbeat, burial of the dead,
delivery by lane, draining. Never knows Celery: ``worker`` drives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mailgate.config.faults import ConfigError
from mailgate.config.relays import Relay, Secret
from mailgate.config.reloading import Renewal
from mailgate.config.sandbox import VIEWER
from mailgate.config.shape import Config
from mailgate.config.terms import Rate
from mailgate.config.urls import is_redis
from mailgate.delivery.conversation import Gate, Marker
from mailgate.delivery.lease import ProcessLease
from mailgate.delivery.pipeline import Pipeline
from mailgate.delivery.report import Report, tell
from mailgate.delivery.seats import Seats
from mailgate.delivery.vitals import Vitals
from mailgate.dispatch.lanes import kept_for_urgent, lanes_of
from mailgate.dispatch.recall import recall
from mailgate.dispatch.take import Taker
from mailgate.events.publisher import PATIENT, Publisher, outlet
from mailgate.journal import revision
from mailgate.journal.database import Database, JournalAway
from mailgate.journal.facts import hmac_key
from mailgate.journal.permits import JournalLimiter
from mailgate.journal.queue import Queue
from mailgate.journal.recent import nothing_sent
from mailgate.limits.memory import Use
from mailgate.limits.rules import Limiter, LimiterAway
from mailgate.memory import keep_lean
from mailgate.metrics import families
from mailgate.metrics.board import Board
from mailgate.metrics.tally import Tally
from mailgate.model import outcome as outcomes
from mailgate.model.ids import Ids
from mailgate.model.message import Envelope, Letter
from mailgate.model.outcome import Outcome, Reply, Scope
from mailgate.model.state import Lane, Phase
from mailgate.operations.digests import Closer, close_when_due
from mailgate.operations.mending import Release, keep_fresh, release_when_due
from mailgate.operations.reloading import Reloader, Source
from mailgate.render.catalogue import built_in_root
from mailgate.render.dkim import Signer
from mailgate.render.errors import RenderError
from mailgate.render.renderer import Renderer
from mailgate.render.shelf import Shelf
from mailgate.smtp.pool import Pool
from mailgate.tracing.spans import Tracing

#: Slots of the spool for each conversation: outcomes wait in theirs until they are written.
SLOTS = 8

_log = logging.getLogger("mailgate.gateway")


class SchemaBehind(Exception):
    """The journal's schema is not this version's: run ``mailgate db upgrade``."""


class Gateway:
    """One worker process, from the journal's side. Everything runs on one event loop."""

    def __init__(
        self,
        config: Config,
        *,
        ring: Callable[[Lane], None],
        passwords: Mapping[str, Secret],
        password: Callable[[str, Relay], Secret | None] = lambda name, relay: None,
        shelf: Shelf,
        limiter: Callable[[Database, Callable[[], Config]], Limiter],
        signer: Signer | None = None,
        board: Board | None = None,
        tracing: Tracing | None = None,
        source: Source | None = None,
    ) -> None:
        self._config = config
        self._ring = ring
        if config.journal.url is None:
            raise ValueError("journal.url is not set")
        self._database = Database(config.journal.url)
        # Also what a reload changes: whoever was given it looks into this one.
        self._categories = dict(config.categories)
        self._queue = Queue(self._database, self._categories)
        self._limiter = limiter(self._database, lambda: self._config)
        self._shelf = shelf
        self._renderer = Renderer(shelf.catalogue, signer=signer)
        self._seats = self._seats_of(config.relays)
        viewer = config.sandbox.viewer
        self._pool = Pool(
            config.relays if viewer is None else {**config.relays, VIEWER: viewer},
            passwords,
            kept=_kept(config),
            rules=config.rules,
            seats=self._seats,
        )
        self._password = password
        self._ids = Ids(random.random)
        self._tally = Tally()
        # Intake publishes; where there is none, we do.
        self._publisher = Publisher(config, self._database, tally=self._tally, patience=PATIENT)
        self._tracing = tracing
        self._lease = self._new_lease()
        self._reloader = Reloader(
            self._database, "worker", config, source or Source(lambda: self._config), self._adopt
        )
        self._pipeline: Pipeline | None = None
        self._closer: Closer | None = None
        self._taker: Taker | None = None
        self._vitals: Vitals | None = None
        if board is not None:
            self._vitals = Vitals(
                self._tally,
                board,
                self._pool,
                self._renderer,
                lambda: (self._lease, self._pipeline),
            )
        self._shown: asyncio.Task[None] | None = None
        self._life: asyncio.Task[None] | None = None
        self._tending: list[asyncio.Task[Any]] = []
        # Held while a new lease takes the place of one that was buried.
        self._changing = asyncio.Lock()
        self._ending = False
        self._away = False

    @classmethod
    def from_config(
        cls,
        config: Config,
        *,
        ring: Callable[[Lane], None],
        passwords: Mapping[str, Secret] | None = None,
        password: Callable[[str, Relay], Secret | None] = lambda name, relay: None,
        board: Board | None = None,
        tracing: Tracing | None = None,
        source: Source | None = None,
    ) -> Gateway:
        """Reads templates and DKIM keys; raises ``ConfigError`` for a key that cannot sign.

        ``board`` is where the process hangs out its metrics, ``tracing`` takes its spans.
        """
        return cls(
            config,
            ring=ring,
            passwords=passwords or {},
            password=password,
            shelf=_shelf(config),
            limiter=lambda database, current: open_limiter(config, database, current),
            signer=_signer(config),
            board=board,
            tracing=tracing,
            source=source,
        )

    async def start(self) -> None:
        """Open the journal and the lease; raises ``JournalAway`` or ``SchemaBehind``."""
        try:
            behind = await asyncio.to_thread(revision.behind, self._config.journal.url or "")
            if behind:
                raise SchemaBehind(f"the journal's schema is at {behind}: run mailgate db upgrade")
            secret = await self._database.run(hmac_key)
            await self._lease.open()
            await self._reloader.begin(self._lease.id)
        except BaseException:
            self._database.close()
            raise
        sandbox = self._config.sandbox
        if sandbox.mode != "off":
            _log.warning(
                "the sandbox is on: mail goes to nobody but those it allows",
                extra={"mode": sandbox.mode, "allowed": len(sandbox.allow)},
            )
        self._pipeline = self._new_pipeline(secret)
        self._life = asyncio.create_task(self._live(secret))
        self._tend(secret)
        if self._vitals is not None:
            self._shown = asyncio.create_task(self._vitals.hang_out())

    def _seats_of(self, relays: Mapping[str, Relay]) -> dict[str, Seats]:
        return {
            name: Seats(self._database, lambda: self._lease.id, name, relay.max_connections_total)
            for name, relay in relays.items()
            if relay.max_connections_total is not None
        }

    def _new_lease(self) -> ProcessLease:
        slots = self._config.worker.conversations * SLOTS
        return ProcessLease(self._database, self._queue, self._config, self._ids, slots)

    def _new_pipeline(self, secret: bytes) -> Pipeline:
        self._taker = Taker(
            self._database, self._queue, self._limiter, self._config, secret, self._tally
        )
        return Pipeline(
            self._config,
            self._database,
            self._queue.settling,
            self._taker,
            self._limiter,
            self._lease,
            self._render,
            self._send,
            random.random,
            Report(self._tally, self._database.now, self._tracing),
            tell,
            self._trouble,
            self._tally,
            lambda: self._pool.busy,
            self._queue.contents.whole,
        )

    async def deliver(self, lane: Lane, deadline: float) -> dict[str, int]:
        """Deliver what is due in ``lane`` and those above it until ``deadline`` (monotonic).

        Gives how many recipients were settled, by outcome. With work left it rings
        the lane again, so that no task runs for ever and idle workers join in.
        """
        if self._pipeline is None:
            return {}
        more = False
        counts, more = await self._pipeline.run(lanes_of(lane), deadline, self._call_help(lane))
        if more:
            self._ring(lane)
        return dict(counts)

    def _call_help(self, lane: Lane) -> Callable[[], None]:
        """More is due than this process has places for: another may be idle."""
        return lambda: self._ring(lane)

    async def due(self) -> frozenset[Lane]:
        """The lanes that have something due now."""
        now = self._database.now()
        if self._taker is None:
            return await self._database.read(lambda c: self._queue.next_due(c, now))
        taker = self._taker
        return await self._database.read(lambda c: taker.due(c, now))

    async def until_due(self, most: float) -> float:
        """Seconds until something falls due that was not before, at most ``most``."""
        now = self._database.now()
        at = await self._database.read(lambda c: self._queue.next_at(c, now))
        # A moment more, for the millisecond that was cut off.
        return most if at is None else min(most, (at - now) / 1000 + 0.002)

    async def stop(self, grace: float) -> None:
        """Let conversations end for ``grace`` seconds, abort the rest, give the lease back.

        The heart beats until they have ended: who waits for the reply to a dot must not
        be taken for dead meanwhile.
        """
        async with self._changing:
            self._ending = True
        if self._pipeline is not None:
            await self._pipeline.stop(grace)
        for task in (self._life, self._shown, *self._tending):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._vitals is not None:
            await self._vitals.once()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        await self._pool.close(1.0)
        await self._limiter.close()
        if self._pipeline is not None:
            try:
                await asyncio.to_thread(self._reloader.end_now)
                if not self._pipeline.unsettled:
                    await self._lease.close()
            except JournalAway as error:
                self._trouble("the journal is away; others will settle what is left", error)
        self._database.close()

    # --- the configuration, read again ----------------------------------------------------

    def _adopt(self, renewal: Renewal) -> None:
        """Raises ``ValueError`` or ``OSError`` with nothing changed."""
        config = renewal.config
        new = {name: config.relays[name] for name in renewal.new}
        seats = self._seats_of(new)
        passwords = {
            name: secret
            for name, relay in new.items()
            if (secret := self._password(name, relay)) is not None
        }
        self._pool.add(new, passwords, kept=_kept(config), seats=seats, rules=config.rules)
        self._seats |= seats
        self._pool.read_by(config.rules)
        self._config = config
        self._categories |= config.categories
        for name in set(self._categories) - set(config.categories):
            del self._categories[name]
        self._lease.adopt(config)
        self._publisher.adopt(config)
        for one in (self._pipeline, self._closer):
            if one is not None:
                one.adopt(config)

    # --- templates -----------------------------------------------------------------------

    def _tend(self, secret: bytes) -> None:
        """Keep the templates as they are on disk; let go who waited for one that serves.

        And close the digests whose time has come, and let go of memory.
        """
        release = Release(self._shelf, self._database, self._ring, self._categories)

        def changed(names: frozenset[str]) -> None:
            self._renderer.adopt(self._shelf.catalogue)
            release.changed(names)

        closer = Closer(self._database, self._config, secret, self._subject, self._ring)
        self._closer = closer
        self._tending = [
            asyncio.create_task(keep_fresh(self._shelf, changed)),
            asyncio.create_task(release_when_due(release)),
            asyncio.create_task(close_when_due(closer)),
            asyncio.create_task(self._publisher.run()),
            asyncio.create_task(keep_lean()),
        ]

    # --- heartbeat and burial -------------------------------------------------------

    async def _live(self, secret: bytes) -> None:
        every = self._config.worker.lease / 4
        next_beat = time.monotonic() + every
        next_unclaimed = time.monotonic() + self._config.worker.lease
        while True:
            await asyncio.sleep(0.8 + 0.4 * random.random())
            try:
                now = time.monotonic()
                if now >= next_beat:
                    await asyncio.to_thread(self._database.set_clock)
                    if not await self._lease.beat():
                        await self._start_over(secret)
                    next_beat = now + every
                if self._ending:
                    continue
                await self._reloader.look()
                buried = await self._lease.sweep(random.random)
                if now >= next_unclaimed:
                    next_unclaimed = now + self._config.worker.lease
                    buried += await self._lease.sweep_unclaimed(random.random)
                if buried:
                    self._tally.add(families.BURIED, (), buried)
                    _log.warning("settled what a dead worker had claimed", extra={"count": buried})
                    for lane in await self.due():
                        self._ring(lane)
                self._away = False
            except JournalAway as error:
                self._trouble("the journal is away", error)
            except Exception as error:  # noqa: BLE001 - without a heart the process is a corpse
                self._trouble("the heartbeat failed, beating on", error)

    async def _start_over(self, secret: bytes) -> None:
        """We were taken for dead: nothing that we claimed is ours any more."""
        async with self._changing:
            if self._ending:
                return
            _log.error("this worker was taken for dead and starts over with a new lease")
            self._tally.add(families.STARTED_OVER)
            if self._pipeline is not None:
                await self._pipeline.stop(0)
            self._lease.abandon()
            lease = self._new_lease()
            await lease.open()
            self._lease = lease
            for seats in self._seats.values():
                await seats.renew()
            # Before anything that may fail: without it the process would never send again.
            self._pipeline = self._new_pipeline(secret)
            await self._reloader.moved(lease.id)

    def _trouble(self, what: str, error: BaseException) -> None:
        """One line an outage, not one a try."""
        if isinstance(error, JournalAway):
            if self._away:
                return
            self._away = True
            _log.error(what, extra={"error": str(error)})
        else:
            _log.error(what, exc_info=error)

    # --- the rooms that a conversation passes --------------------------------------------

    def _render(self, letter: Letter) -> bytes | Outcome:
        try:
            return self._renderer.render(letter)
        except RenderError as error:
            if error.held:
                return outcomes.held(error.kind, error.message)
            reply = Reply(0, error.message)
            return outcomes.failed(Phase.RENDER, reply, error.kind, Scope.MESSAGE)

    def _subject(self, letter: Letter) -> str | None:
        try:
            return self._renderer.subject(letter)
        except RenderError:
            return None

    def _send(
        self, relay: str, envelope: Envelope, marker: Marker, gate: Gate | None, urgent: bool
    ) -> Awaitable[Outcome]:
        return self._pool.deliver(relay, envelope, marker, gate, urgent=urgent)


def _kept(config: Config) -> dict[str, int]:
    """How many connections of each relay only urgent mail may use."""
    reserved = config.worker.reserved
    return {n: kept_for_urgent(r.max_connections, reserved) for n, r in config.relays.items()}


def _shelf(config: Config) -> Shelf:
    roots = (*config.templates.path, built_in_root())
    return Shelf(roots, default_locale=config.default_locale)


def _signer(config: Config) -> Signer | None:
    if not config.dkim:
        return None
    # Here and not above: most have no keys, and OpenSSL's wrapping is 8 MiB.
    from mailgate.render.dkim_keys import read_keys

    return read_keys(config.dkim).signer()


def preload(config: Config) -> None:
    """Import and read what every gateway of ``config`` will, so that forks share it.

    Opens no connection and starts no thread. What cannot be read is for the gateway to say.
    """
    import mailgate.render.compiling

    outlet(config)
    if config.journal.url is not None:
        Database(config.journal.url).close()
    if limiter_url(config) != "journal":
        import mailgate.limits.redis  # noqa: F401
    with contextlib.suppress(OSError, ConfigError):
        _shelf(config)
        _signer(config)


def open_limiter(
    config: Config, database: Database, current: Callable[[], Config] | None = None
) -> Limiter:
    """The store of the permits: the journal, or the Redis that the configuration names.

    ``current`` gives the configuration whose limits a wiped store is rebuilt for.
    """
    url = limiter_url(config)
    if url == "journal":
        return JournalLimiter(database)
    from mailgate.limits.redis import RedisLimiter

    async def nothing_given() -> bool:
        try:
            return await database.read(nothing_sent)
        except JournalAway as error:
            raise LimiterAway(f"the journal is away: {error}") from error

    async def recalled() -> list[tuple[str, Rate, list[Use]]]:
        _log.warning("the limiter's store has lost its memory: reading it from the journal")
        try:
            return await recall(database, config if current is None else current())
        except JournalAway as error:
            raise LimiterAway(f"the journal is away: {error}") from error

    return RedisLimiter(url, nothing_given=nothing_given, recall=recalled)


def limiter_url(config: Config) -> str:
    """``journal``, or a Redis URL: the broker's when it is one and nothing else is said."""
    if config.limiter.url is not None:
        return config.limiter.url
    broker = config.broker.url or ""
    return broker if is_redis(broker) else "journal"
