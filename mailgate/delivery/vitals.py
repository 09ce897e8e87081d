"""How a delivering process is right now, hung out once a second.

Owns the gauges of the process: conversations, lease, connections, the render cache.
Reads only what is in memory, so that it goes on while the journal is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mailgate.delivery.lease import ProcessLease
from mailgate.delivery.pipeline import Pipeline
from mailgate.metrics import families
from mailgate.metrics.board import Board
from mailgate.metrics.tally import Tally
from mailgate.render.renderer import Renderer
from mailgate.smtp.pool import Pool

#: Seconds between two looks.
EVERY = 1.0

_log = logging.getLogger("mailgate.metrics")


class Vitals:
    """``now_at_work`` gives the lease and the pipeline of the moment: both may be renewed."""

    def __init__(
        self,
        tally: Tally,
        board: Board,
        pool: Pool,
        renderer: Renderer,
        now_at_work: Callable[[], tuple[ProcessLease, Pipeline | None]],
    ) -> None:
        self._tally = tally
        self._board = board
        self._pool = pool
        self._renderer = renderer
        self._now_at_work = now_at_work
        self._failed = False

    async def hang_out(self) -> None:
        """Until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(EVERY)

    async def once(self) -> None:
        self._look()
        try:
            await asyncio.to_thread(self._board.publish, self._tally.snapshot())
            self._failed = False
        except OSError as error:
            if not self._failed:
                _log.error("metrics cannot be written", extra={"error": str(error)})
            self._failed = True

    def _look(self) -> None:
        lease, pipeline = self._now_at_work()
        put = self._tally.set
        put(families.WORKER_PROCESSES, (), 1)
        put(families.LEASES_VALID, (), int(lease.valid))
        put(families.CONVERSATIONS, (), pipeline.conversations if pipeline else 0)
        put(families.UNSETTLED, (), pipeline.unsettled if pipeline else 0)
        for relay, stats in self._pool.stats().items():
            put(families.CONNECTIONS, (relay, "busy"), stats.busy)
            put(families.CONNECTIONS, (relay, "idle"), stats.idle)
            other = max(0, stats.open - stats.busy - stats.idle)
            put(families.CONNECTIONS, (relay, "other"), other)
            put(families.CONNECTIONS_OPENED, (relay,), stats.opened)
            put(families.CONNECTION_WAITERS, (relay,), stats.waiting)
            put(families.SETUP_FAILURES, (relay,), stats.failures)
            put(families.BACKING_OFF, (relay,), max(0.0, stats.backing_off))
        rendered, cache = self._renderer.stats(), self._renderer.cache
        put(families.RENDERED, ("cached",), rendered.fast)
        put(families.RENDERED, ("compiled",), rendered.made)
        put(families.RENDERED, ("in_full",), rendered.full)
        put(families.RENDER_CACHE_EVICTED, (), cache.evicted)
        put(families.RENDER_CACHE_BYTES, (), rendered.bytes)
        put(families.RENDER_MISMATCHES, (), rendered.differing)
