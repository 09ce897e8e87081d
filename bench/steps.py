"""``./dev bench steps``: what each step costs, in one process, with no server beside SQLite.

Owns a walk of the benchmark's messages through the rooms that do not wait: read and decide,
write, take and claim, render, settle. Processor time of this process, user and system, so
that a machine that is busy with other things hardly changes it; Celery, SMTP, brokers and
the switches between processes are not in it (``--budget`` of the whole has them).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.workload import SENDER, TEMPLATES, bodies
from mailgate.config.load import load
from mailgate.config.shape import Config
from mailgate.config.streams import Stream
from mailgate.delivery.retry import settle
from mailgate.dispatch.take import Taker
from mailgate.intake.accept import Accept
from mailgate.intake.door import Delivery
from mailgate.journal import leases, schema
from mailgate.journal.arrivals import Arrivals
from mailgate.journal.database import Database
from mailgate.journal.permits import JournalLimiter
from mailgate.journal.queue import Queue
from mailgate.journal.settling import Settlement
from mailgate.metrics.tally import Tally
from mailgate.model.ids import Ids
from mailgate.model.outcome import Reply, sent
from mailgate.model.state import Lane
from mailgate.render.catalogue import built_in_root
from mailgate.render.renderer import Renderer
from mailgate.render.shelf import Shelf


def main(options: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench steps", description=__doc__)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=500, help="of intake")
    parser.add_argument("--turn", type=int, default=50, help="claims and settlements a turn")
    parser.add_argument("--journal", help="URL of an empty journal; else a new SQLite file")
    given = parser.parse_args(options)
    with tempfile.TemporaryDirectory(prefix="mgb-") as directory:
        url = given.journal or f"sqlite:///{directory}/journal.db"
        spent = asyncio.run(walk(url, given.messages, given.batch, given.turn))
    for step, seconds in spent.items():
        print(f"{step:12}{seconds / given.messages * 1e6:8.0f} µs a message")
    print(f"{'together':12}{sum(spent.values()) / given.messages * 1e6:8.0f}")
    return 0


async def walk(url: str, messages: int, batch: int, turn: int, run: str = "s") -> dict[str, float]:
    """CPU seconds by step; ``run`` tells the messages of several walks apart."""
    schema.upgrade(url)
    config = _config(url)
    shelf = Shelf((*config.templates.path, built_in_root()))
    database = Database(url)
    spent: Counter[str] = Counter()
    try:
        ids = Ids(random.random)
        accept = Accept(config, Arrivals(database, ids), shelf.check_data)
        raw = bodies(messages, run)
        for at in range(0, messages, batch):
            begun = time.process_time()
            lot = [
                Delivery(body, "redis", f"{run}{at + n}", False, None, n)
                for n, body in enumerate(raw[at : at + batch])
            ]
            await accept.batch(lot)
            spent["intake"] += time.process_time() - begun
        await _deliver(config, database, shelf, ids, turn, spent)
    finally:
        database.close()
    return spent


async def _deliver(
    config: Config,
    database: Database,
    shelf: Shelf,
    ids: Ids,
    turn: int,
    spent: Counter[str],
) -> None:
    queue = Queue(database)
    renderer = Renderer(shelf.catalogue)
    taker = Taker(database, queue, JournalLimiter(database), config, b"secret", Tally())
    lease = ids.take(database.now())
    ours = leases.Lease(lease, "worker", "bench", "", 1, "")
    await database.run(lambda c: leases.write(c, ours, database.now()))
    waiting: list[Settlement] = []
    while True:
        begun = time.process_time()
        take = await taker.take(
            want=turn, lanes=list(Lane), lease=lease, settlements=waiting, busy=True
        )
        spent["turn"] += time.process_time() - begun
        if not take.taken and not waiting:
            return
        waiting = []
        for taken in take.taken:
            claim = taken.claim
            begun = time.process_time()
            renderer.render(claim.letter)
            after = time.process_time()
            spent["render"] += after - begun
            now = database.now()
            outcome = sent(Reply(250, "2.0.0 Ok: queued"))
            settled: Any = settle(
                claim,
                outcome,
                stream=config.streams.get(claim.stream, Stream()),
                bucket=taken.bucket,
                preferred=config.route(claim.stream),
                started_at=now,
                now=now,
                random=random.random,
                content=None,
                suppressions=config.suppressions,
            )
            waiting.append(settled)
            spent["outcome"] += time.process_time() - after


def _config(url: str) -> Config:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mailgate.toml"
        path.write_text(
            f"""
[broker]
url = "redis://127.0.0.1:1"
[journal]
url = "{url}"
[templates]
path = ["{TEMPLATES}"]
[relays.sink]
host = "127.0.0.1"
port = 1
security = "none"
[streams.transactional]
from = "{SENDER}"
"""
        )
        return load(path, {}, cwd=Path(directory))
