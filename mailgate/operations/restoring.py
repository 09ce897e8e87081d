"""After a backup was restored: what may have been sent since is put before an operator.

Owns the order: no worker lives, then chunk by chunk, then the journal is trusted again.
Interrupted, workers still refuse to send, and the same command goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator

from mailgate.config.shape import Config
from mailgate.journal import leases
from mailgate.journal.database import Connection, Database
from mailgate.journal.restoring import Restoring
from mailgate.journal.surgery import Act


def living(database: Database, config: Config) -> int:
    """How many worker processes have a lease that they renew. Raises ``JournalAway``."""
    since = database.now() - int(config.worker.lease * 1000)
    return len(database.read_now(lambda c: leases.living(c, "worker", since)))


def in_doubt(database: Database, until: int) -> int:
    """How many recipients ``doubt_all`` would make uncertain."""
    return database.read_now(lambda c: Restoring(database).count(c, until))


def doubt_all(database: Database, until: int, act: Act) -> Iterator[int]:
    """Make uncertain what may have been sent; yields how many, chunk by chunk."""
    restoring = Restoring(database)
    last = 0
    while True:

        def work(connection: Connection, last: int = last) -> tuple[int, int]:
            return restoring.doubt(connection, until, last, act)

        count, last = database.run_now(work)
        if not count:
            break
        yield count
    database.run_now(lambda c: restoring.finish(c, until))
