"""``./dev bench scale``: does a mail cost the same, however much was sent and waits?

Owns three questions. *Rows*: processor time a message of the journal's steps, in one
process, in journals with a past of so many messages, in turns (``steps.py``, ``filling.py``).
*Waiting*: what running processes and their servers use while so many wait for a limit, or
behind a pause (``standing.py``). *Processes*: one worker process and two, one intake and ten
(``standing.py``). Read the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import filling, machine, standing, steps
from bench.keeping import keep
from bench.sides import makers
from mailgate.config.shape import Config
from mailgate.dispatch.take import Taker
from mailgate.journal import schema
from mailgate.journal.database import Database
from mailgate.journal.outbox import BATCH, Outbox
from mailgate.journal.permits import JournalLimiter
from mailgate.journal.queue import Queue
from mailgate.metrics.tally import Tally
from tests.servers import Postgres

PARTS = ("rows", "waiting", "processes")
SIZES = (1_000, 100_000, 2_000_000)
#: A past of so many messages is made anew for each round; a larger one is used again.
ANEW = 200_000
#: How far a ratio may be from 1.
FLAT = 0.15
#: Looks of an idle process that are timed.
LOOKS = 200
#: What depends on the journal: the rest of a walk is there to feed it.
STEPS = ("intake", "turn", "events", "server")

#: By journal and size, the cost of each step in each round (microseconds a message).
Costs = dict[str, dict[int, list[dict[str, float]]]]


def main(options: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench scale", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="which, by comma")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="rows, by comma")
    parser.add_argument("--journals", default="sqlite,postgresql", help="which, by comma")
    parser.add_argument("--rounds", type=int, default=3, help="of all sizes")
    parser.add_argument("--messages", type=int, default=2000, help="a round and size")
    parser.add_argument("--waiting", type=int, default=200_000, help="behind a limit, a pause")
    parser.add_argument("--seconds", type=float, default=30.0, help="of looking on while they do")
    parser.add_argument("--sides", default="embedded,servers", help="of running processes")
    given = parser.parse_args(options)
    parts, sides = given.parts.split(","), given.sides.split(",")
    directory = Path(tempfile.mkdtemp(prefix="mgz-"))
    directory.chmod(0o711)
    document: dict[str, Any] = {}
    flat = True
    try:
        if "rows" in parts:
            sizes = [int(size) for size in given.sizes.split(",")]
            costs = rows(directory, given.journals.split(","), sizes, given.rounds, given.messages)
            document["rows"], flat = costs, tell_rows(costs)
        if {"waiting", "processes"} & set(parts):
            with makers(directory, sides) as make:
                if "waiting" in parts:
                    found = standing.waiting(make, directory, given.waiting, given.seconds)
                    document["waiting"] = found
                    flat = standing.tell_waiting(found) and flat
                if "processes" in parts:
                    counts = standing.processes(make, directory, given.rounds, given.messages)
                    document["processes"] = counts
                    standing.tell_processes(counts)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    keep("scale", document)
    return 0 if flat else 1


# --- rows ------------------------------------------------------------------------------


def rows(
    directory: Path, names: Sequence[str], sizes: Sequence[int], rounds: int, messages: int
) -> Costs:
    """Processor time of each step by journal and size, round by round, sizes in turns."""
    found: Costs = {name: {size: [] for size in sizes} for name in names}
    for name in names:
        with _journals(name, directory / name) as (make, server):
            kept: dict[int, str] = {}
            # What a process does once only.
            warm = make()
            schema.upgrade(warm)
            _round(warm, "warm", 300, server)
            for turn in range(rounds):
                # Back and forth, so that a machine that gets slower harms no size more.
                for size in sizes if turn % 2 == 0 else sizes[::-1]:
                    url = kept.get(size) or make()
                    if size not in kept:
                        schema.upgrade(url)
                        filling.fill(url, size)
                        filling.settle_down(url)
                    if size > ANEW:
                        kept[size] = url
                    cost = _round(url, f"r{turn}", messages, server)
                    found[name][size].append(cost)
                    said = "  ".join(f"{step} {us:.0f}" for step, us in cost.items())
                    print(f"{name}, {size:,} rows: {said}", file=sys.stderr, flush=True)
    return found


@contextmanager
def _journals(
    name: str, directory: Path
) -> Iterator[tuple[Callable[[], str], Callable[[], float]]]:
    directory.mkdir()
    directory.chmod(0o711)
    with ExitStack() as stack:
        if name == "sqlite":
            numbers = iter(range(1000))
            yield (lambda: f"sqlite:///{directory / f'{next(numbers)}.db'}"), lambda: 0.0
        else:
            postgres = Postgres(directory / "server", durable=True)
            stack.callback(postgres.stop)
            yield (
                lambda: postgres.url(postgres.fresh_database()),
                lambda: machine.cpu(postgres._daemon._process.pid),
            )


def _round(url: str, run: str, messages: int, server: Callable[[], float]) -> dict[str, float]:
    """Microseconds a message by step; ``look`` is a look of a process with nothing to do."""
    gc.collect()
    before = server()
    spent = asyncio.run(steps.walk(url, messages, 500, 50, run))
    spent["events"] = _published(url)
    spent["server"] = server() - before
    cost = {step: spent[step] / messages * 1e6 for step in STEPS}
    cost["look"] = _looked(url) / LOOKS * 1e6
    return cost


def _published(url: str) -> float:
    """Processor time of reading all events that were written, as the publisher does."""
    database = Database(url)
    begun = time.process_time()
    try:
        outbox = Outbox(database, 1)
        reached = database.run_now(lambda c: outbox.hold(c, 8000)) or 0
        # A new journal begins at 0.
        while after := _publish(database, outbox, reached):
            reached = after
        return time.process_time() - begun
    finally:
        database.close()


def _publish(database: Database, outbox: Outbox, reached: int) -> int:
    """One batch; gives the last that was read, 0 when nothing was left."""
    told = database.read_now(lambda c: outbox.next(c, reached, BATCH))
    if not told:
        return 0
    database.run_now(lambda c: outbox.advance(c, reached, told[-1].id, 8000))
    return told[-1].id


def _looked(url: str) -> float:
    database = Database(url)
    config = Config.model_validate({"relays": {"sink": {"host": "127.0.0.1"}}})
    queue = Queue(database)
    taker = Taker(database, queue, JournalLimiter(database), config, b"secret", Tally())
    try:
        begun = time.process_time()
        for _ in range(LOOKS):
            now = database.now()
            database.read_now(lambda c, now=now: taker.due(c, now))  # type: ignore[misc]
            database.read_now(lambda c, now=now: queue.next_at(c, now))  # type: ignore[misc]
        return time.process_time() - begun
    finally:
        database.close()


def tell_rows(costs: Costs) -> bool:
    """Print the table; whether the cost of a message is flat in each journal."""
    flat = True
    heads = "".join(f"{step:>9}" for step in (*STEPS, "together", "look"))
    print(f"\n{'processor time a message, µs':34}{heads}{'× least':>9}")
    for name, by_size in costs.items():
        least = min(by_size)
        for size, found in by_size.items():
            middle = {step: statistics.median(one[step] for one in found) for step in found[0]}
            together = sum(middle[step] for step in STEPS)
            ratios = [
                sum(one[s] for s in STEPS) / sum(base[s] for s in STEPS)
                for one, base in zip(found, by_size[least], strict=True)
            ]
            ratio = statistics.median(ratios)
            flat = flat and abs(ratio - 1) <= FLAT
            told = "".join(f"{middle[step]:9.0f}" for step in STEPS)
            print(
                f"{f'{name}, {size:,} rows':34}{told}{together:9.0f}{middle['look']:9.0f}"
                f"{ratio:9.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            )
    return flat
