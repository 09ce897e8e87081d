"""One journal and the gateways over it, with faults where a test wants them.

Owns the configuration of the tests, the looking at rows, and the faults of a
journal: away, slow, or a COMMIT whose answer is lost. Sends over real sockets.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mailgate.config.shape import Config
from mailgate.gateway import Gateway
from mailgate.journal.arrivals import Arrival, BucketKey
from mailgate.journal.database import Connection, Database, JournalAway
from mailgate.journal.queue import Turn
from mailgate.model.state import Lane
from tests.contract.journal.rig import Rig, arrival
from tests.integration.smtp.scripted import ScriptedRelay

T = TypeVar("T")
Work = Callable[[Connection], T]

#: Retries that a test can wait for.
SOON = {"first": 0.2, "factor": 1.0, "cap": 1.0, "jitter": 0.0, "give_up": 3600.0}


class House:
    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.journal = Rig(url)
        self.rings: list[Lane] = []
        self._gateways: list[Gateway] = []

    async def close(self) -> None:
        for gateway in self._gateways:
            await gateway.stop(0)
        await asyncio.to_thread(self.journal.close)

    # --- processes -------------------------------------------------------------

    def config(self, servers: dict[str, ScriptedRelay], **changes: Any) -> Config:
        """``changes`` go over the sections, key by key."""
        said: dict[str, Any] = {
            "state_dir": self.directory / "state",
            "broker": {"url": "memory://"},
            "journal": {"url": self.url},
            "limiter": {"url": "journal"},
            "relays": {
                name: {
                    "host": "127.0.0.1",
                    "port": relay.port,
                    "security": "none",
                    "hostname": "client.example",
                    "connect_timeout": 5,
                    "command_timeout": 10,
                    "dot_timeout": 10,
                }
                for name, relay in servers.items()
            },
            "streams": {"transactional": {"retry": SOON}},
            "worker": {"conversations": 10, "lease": 10},
        }
        return Config.model_validate(_over(said, changes))

    async def open(
        self,
        servers: dict[str, ScriptedRelay],
        *,
        passwords: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> Gateway:
        """A worker process, up to what Celery would add."""
        config = self.config(servers, **changes)
        gateway = Gateway.from_config(config, ring=self.rings.append, passwords=passwords)
        await gateway.start()
        self._gateways.append(gateway)
        return gateway

    def gone(self, gateway: Gateway) -> None:
        """The test has stopped this one itself."""
        self._gateways.remove(gateway)

    # --- mail --------------------------------------------------------------------

    async def add(
        self,
        *emails: str,
        key: str = "one",
        route: Sequence[str] = ("main",),
        lane: Lane = Lane.NORMAL,
        **changes: Any,
    ) -> list[int]:
        """One message to each of ``emails``, or a shared one with ``kind="to"``."""
        bucket = BucketKey(lane, "shop", tuple(route))
        return await self.store(arrival(key, *emails, bucket=bucket, **changes))

    async def store(self, *batch: Arrival) -> list[int]:
        """The ids of the recipients, in order."""
        stored = await self.journal.arrivals.store(batch)
        out: list[int] = []
        for message in stored.ids:
            statement = "SELECT id FROM recipients WHERE message_id = :m ORDER BY n"
            out += [r.id for r in self.journal.all(statement, m=message)]
        return out

    # --- looking -----------------------------------------------------------------

    def state(self, recipient_id: int) -> str:
        return str(self.journal.row(recipient_id).state)

    def states(self) -> dict[str, int]:
        rows = self.journal.all("SELECT state, count(*) AS n FROM recipients GROUP BY state")
        return {r.state: r.n for r in rows}

    def kinds(self, recipient_id: int) -> list[str]:
        """The events of a recipient, in order; none has the number of another."""
        said = self.journal.events(recipient_id)
        numbers = [seq for seq, _ in said]
        assert numbers == sorted(set(numbers)), said
        return [kind for _, kind in said]

    def attempts(self, recipient_id: int) -> list[str]:
        statement = "SELECT kind FROM attempts WHERE recipient_id = :id ORDER BY id"
        return [r.kind for r in self.journal.all(statement, id=recipient_id)]

    def uncertain(self) -> int:
        return self.journal.count("attempts", "kind = 'uncertain'")

    def nothing_is_left_behind(self) -> None:
        """No lease, no spool, nothing claimed."""
        assert self.journal.count("leases") == 0
        assert list((self.directory / "state" / "spool").iterdir()) == []
        assert self.journal.count("recipients", "state = 'sending'") == 0


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _over(out[key], value) if both else value
    return out


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(0.01)


def soon(seconds: float = 3.0) -> float:
    """A deadline for a delivery task."""
    return time.monotonic() + seconds


class Faults:
    """Stands between a gateway and its journal.

    ``away`` refuses everything. ``lose`` names turns whose COMMIT happens and whose
    answer is lost, each by something of the turn (``claims``, ``settled``) that is not
    empty. ``hold()`` lets transactions wait until ``free()``.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.away = False
        self.lose: list[str] = []
        self.lost = 0
        self.refused = 0
        self._open = threading.Event()
        self._open.set()
        self.waiting = threading.Event()
        database: Database = gateway._database
        self._run, self._read = database.run_now, database.read_now
        self._database = database
        database.run_now = self.run_now  # type: ignore[method-assign]
        database.read_now = self.read_now  # type: ignore[method-assign]

    def hold(self) -> None:
        self.waiting.clear()
        self._open.clear()

    def free(self) -> None:
        self._open.set()

    def run_now(self, work: Work[T]) -> T:
        if not self._open.is_set():
            self.waiting.set()
            self._open.wait(20)
        self._refuse()
        done = self._run(work)
        if self.lose and isinstance(done, Turn) and getattr(done, self.lose[0]):
            self.lose.pop(0)
            self.lost += 1
            raise JournalAway("the answer to COMMIT was lost")
        return done

    def read_now(self, work: Work[T]) -> T:
        self._refuse()
        return self._read(work)

    def _refuse(self) -> None:
        if self.away:
            self.refused += 1
            raise JournalAway("away")
