"""The life of a worker process in the journal, and the burial of dead ones.

Owns this process's lease and spool, the answer to "may I still send?", and the
sweep that settles what dead processes had claimed. Never sends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from mailgate import failpoints
from mailgate.config.shape import Config
from mailgate.config.streams import Stream
from mailgate.delivery import spool as spools
from mailgate.delivery.recovery import judge
from mailgate.delivery.spool import Spool
from mailgate.delivery.watermark import Watermark
from mailgate.journal import leases
from mailgate.journal.database import Connection, Database, elapsed
from mailgate.journal.leases import Lease
from mailgate.journal.queue import Queue
from mailgate.model.ids import Ids

KIND = "worker"

#: The boot of a kernel that does not show it (``ProcSubset=pid``): no mark proves anything,
#: since it might be from before a reboot.
UNKNOWN = "unknown"

#: Seconds before the lease's end at which its owner stops sending: what a clock
#: may be off, and what a dot may take from the check to the kernel.
MARGIN = 2.0


class ProcessLease:
    """One lease. A process that was buried makes a new one."""

    def __init__(
        self, database: Database, queue: Queue, config: Config, ids: Ids, spool_slots: int
    ) -> None:
        self._database = database
        self._queue = queue
        self._config = config
        self._slots = spool_slots
        self._ids = ids
        self._beaten = 0.0
        # The last beat of each other process, and when we saw it first.
        self._heard: dict[int, tuple[int, float]] = {}
        self._listened = 0.0
        self._removed = False
        self._watermark = Watermark(config.state_dir.resolve())
        self.of, self.place = 1, 0
        self.id = 0
        self.spool: Spool

    async def open(self) -> None:
        """Write ourselves down; from here on we may claim.

        Raises ``JournalSetBack`` for a journal that is older than what this host knows.
        """
        now = self._database.now()
        self.id = self._ids.take(now)
        directory = (self._config.state_dir / "spool").resolve()
        self.spool = Spool(directory / f"{self.id}.spool", self.id, self._slots)
        lease = Lease(
            self.id, KIND, socket.gethostname(), boot_id(), os.getpid(), str(self.spool.path)
        )
        begun = elapsed()

        def write(connection: Connection) -> None:
            self._watermark.reach(connection, now)
            leases.write(connection, lease, now)

        try:
            await self._database.run(write)
        except BaseException:
            # Perhaps it was written: then under it nothing is claimed, and others remove it.
            self.spool.close()
            raise
        self._watermark.keep(now)
        self._beaten = begun
        await self._look_around()

    def adopt(self, config: Config) -> None:
        """Settle what the dead had claimed by another configuration; the lease stays as long."""
        self._config = config

    @property
    def valid(self) -> bool:
        """Whether no other process can have buried us yet.

        Measured on the clock that also runs while the machine sleeps; SIGSTOP does
        not stop it either.
        """
        return elapsed() - self._beaten < self._config.worker.lease - MARGIN

    async def beat(self) -> bool:
        """Say that we live; false when we have been buried and must stop."""
        begun = elapsed()
        now = self._database.now()

        def work(connection: Connection) -> bool:
            self._watermark.reach(connection, now)
            return leases.beat(connection, self.id, now)

        alive = await self._database.run(work)
        self._watermark.keep(now)
        if alive and not self.spool.sealed:
            self._beaten = begun
            await self._look_around()
            return True
        self._removed = not alive
        return False

    async def _look_around(self) -> None:
        since = self._database.now() - int(self._config.worker.lease * 1000)
        alive = await self._database.read(lambda c: leases.living(c, KIND, since))
        if self.id in alive:
            self.of, self.place = len(alive), alive.index(self.id)

    async def close(self) -> None:
        """Give the lease back, once nothing is claimed under it.

        What is claimed all the same (by a transaction whose end we never learned) is
        for others to settle: they get the lease and the spool that proves it unsent.
        """
        if await self._remove(self.id):
            self.spool.close()
        else:
            self.spool.leave()

    def abandon(self) -> None:
        """Others have buried us, or are about to: then the marks are theirs to read."""
        if self._removed:
            self.spool.close()
        else:
            self.spool.leave()

    async def _remove(self, lease_id: int) -> bool:
        return await self._database.run(lambda c: leases.remove(c, [lease_id]))

    async def sweep(self, random: Callable[[], float]) -> int:
        """Bury the dead: settle what they had claimed. Gives how many recipients that was.

        Dead is, on this host, whose lock is free; and anywhere, who has not beaten for
        a lease while we looked. No two clocks are compared, so none can kill by a step;
        and while the journal was away, or we asleep, nobody could be heard.
        """
        others = await self._database.read(lambda c: leases.others(c, self.id))
        count = 0
        if elapsed() - self._listened > self._config.worker.lease / 2:
            self._heard.clear()
        self._listened = elapsed()
        for other in others:
            here = other.host == socket.gethostname() and other.boot == boot_id() != UNKNOWN
            path = Path(other.spool)
            if not self._silent(other) and not (here and spools.is_dead(path)):
                continue
            marks = spools.bury(path, other.id) if here else None
            failpoints.hit("burial.sealed")
            count += await self._settle(other.id, marks, random)
            failpoints.hit("burial.after_commit")
            if await self._remove(other.id) and here and spools.is_dead(path):
                spools.discard(path)
        self._heard = {o.id: self._heard[o.id] for o in others}
        return count

    def _silent(self, other: Lease) -> bool:
        """Whether it has not beaten for a whole lease before our eyes."""
        now = elapsed()
        beat, since = self._heard.get(other.id, (None, now))
        if beat != other.beat_at:
            since = now
        self._heard[other.id] = (other.beat_at, since)
        return now - since > self._config.worker.lease

    async def sweep_unclaimed(self, random: Callable[[], float]) -> int:
        """Settle rows whose claimant has no lease: it was buried in the middle of a claim."""
        return await self._settle(None, None, random)

    async def _settle(
        self,
        lease_id: int | None,
        marks: dict[tuple[int, int], spools.Mark] | None,
        random: Callable[[], float],
    ) -> int:
        def work(connection: Connection) -> int:
            now = self._database.now()
            orphans = (
                leases.unclaimed(connection)
                if lease_id is None
                else leases.claimed_by(connection, lease_id)
            )
            settlements = [
                judge(
                    orphan,
                    marks,
                    stream=self._config.streams.get(orphan.stream, Stream()),
                    max_deaths=self._config.worker.max_claims,
                    now=now,
                    random=random,
                )
                for orphan in orphans
            ]
            written = self._queue.settling.write(connection, settlements, now)
            failpoints.hit("burial.before_commit")
            return len(written)

        return await self._database.run(work)


def boot_id() -> str:
    """Tells one run of the machine's kernel from the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return UNKNOWN
