"""``./dev bench distant``: relays whose every answer comes late, beside the plain pattern.

Owns the runs at 20 ms with 100 connections in all and at 200 ms with 200, with the plain
pattern at 20 ms and the same of ours at no distance in turns between them, and their file
in ``bench/results``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import runs
from bench.keeping import keep
from bench.runs import Load
from bench.sides import Embedded, Make, makers
from bench.sinks import FarSink

PROCESSES = 2
#: Places for messages, a connection: one on it, one behind it, and the next ones at hand.
PLACES = 6


@dataclass(frozen=True, slots=True)
class Way:
    """A distance: delay of an answer (seconds), connections in all, messages of a run."""

    name: str
    delay: float
    connections: int
    messages: int


PLAIN = Way("plain", 0.02, PROCESSES, 150)
HERE, NEAR, FAR = (
    Way("here", 0.0, 100, 20_000),
    Way("near", 0.02, 100, 20_000),
    Way("far", 0.2, 200, 20_000),
)
COLUMNS = {
    "rate": "msg/s",
    "middle": "in the middle",
    "times_plain": "x plain",
    "of_one_trip": "of 1 trip",
    "rides": "rides",
    "cores": "cores had",
    "work_us": "µs CPU, all",
    "own_us": "µs CPU, ours",
    "could": "could",
}

Row = dict[str, float]


def main(options: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench distant", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the messages")
    parser.add_argument("--turns", type=int, default=2, help="of all distances")
    given = parser.parse_args(options)
    directory = Path(tempfile.mkdtemp(prefix="mgb-"))
    directory.chmod(0o711)
    found: dict[str, list[Row]] = {way.name: [] for way in (PLAIN, HERE, NEAR, FAR)}
    try:
        with makers(directory, ("plain", "embedded")) as make:
            for turn in range(given.turns):
                # Back and forth, so that a machine that gets slower harms no side more.
                ways = [PLAIN, HERE, NEAR, FAR][:: -1 if turn % 2 else 1]
                for way in ways:
                    side = make["plain"] if way is PLAIN else _distant(make["embedded"], way)
                    row = _run(side, directory / f"{way.name}{turn}", way, given.scale)
                    found[way.name].append(row)
                    print(f"turn {turn + 1}: {way.name}: {row}", file=sys.stderr, flush=True)
                # Both plain and ours at that distance wait for answers, not for the machine.
                row = found["near"][-1]
                row["times_plain"] = row["rate"] / found["plain"][-1]["rate"]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _print(found)
    keep("distant", {"runs": found})
    return 0


def _distant(make: Make, way: Way) -> Make:
    """With the connections of ``way``, and work at hand for all of them."""
    each = way.connections // PROCESSES

    def made(directory: Path, port: int) -> Embedded:
        side = make(directory, port)
        assert isinstance(side, Embedded)
        side.connections = each
        side.extra = f"[worker]\nconversations = {PLACES * each}\nreserved = 0\n"
        return side

    return made


def _run(make: Make, directory: Path, way: Way, scale: float) -> Row:
    sinks: list[FarSink] = []

    def sink(where: Path) -> FarSink:
        sinks.append(FarSink(where, way.delay))
        return sinks[0]

    messages = max(20, int(way.messages * scale))
    warm = 10 if way is PLAIN else runs.WARM
    load = runs.load(make, directory, messages, sink=sink, warm=warm)
    return measured(load, way, sinks[0].story(), warm, os.cpu_count() or 1)


def measured(
    load: Load, way: Way, story: Sequence[tuple[int, int, float]], warm: int, cores: int
) -> Row:
    """What a run came to. ``could`` is what all ``cores`` would do for it at its own cost."""
    first, last = (
        next(s for s in story if s[0] >= warm + share * load.messages) for share in (0.1, 0.9)
    )
    row = {
        "rate": load.rate,
        "middle": (last[0] - first[0]) / (last[2] - first[2]),
        "rides": (last[1] - first[1]) / (last[0] - first[0]),
        "cores": load.work * load.rate / 1e6,
        "work_us": load.work,
        "own_us": load.cpu_total,
    }
    most = cores / load.work * 1e6
    if way.delay:
        # What so many connections can do at one round trip a message and nothing else.
        ideal = way.connections / way.delay
        row["of_one_trip"] = row["middle"] / ideal
        most = min(most, ideal)
    if way is not PLAIN:
        row["could"] = most
    return {name: round(value, 3) for name, value in row.items()}


def _print(found: dict[str, list[Row]]) -> None:
    print(f"{'':26}" + "".join(f"{head:>14}" for head in COLUMNS.values()))
    for way in (PLAIN, HERE, NEAR, FAR):
        rows = found[way.name]
        middle = {n: statistics.median(r[n] for r in rows) for n in COLUMNS if n in rows[0]}
        cells = [f"{middle[n]:.4g}" if n in middle else "" for n in COLUMNS]
        what = f"{way.name}: {way.delay * 1000:.0f} ms, {way.connections}"
        print(f"{what:26}" + "".join(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
