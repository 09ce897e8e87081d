"""``./dev bench``: every part of the benchmark, one after the other, and what was wanted.

Owns the sizes of the parts, the table of wanted and seen at the end, and the picture. Each
part is a command of its own, which can also be run alone; one that fails stops no other.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.keeping import keep
from bench.picture import drawn

PARTS = ("throughput", "lanes", "dead", "distant", "scale", "memory", "start")
_WRITTEN = re.compile(r"^written: (.*\.json)$", re.MULTILINE)

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A figure: at least ``bound`` or, with ``most``, at most; ``seen`` finds it in the files."""

    what: str
    bound: float
    seen: Callable[[Found], float]
    most: bool = True

    def holds(self, seen: float) -> bool:
        return seen <= self.bound if self.most else seen >= self.bound


def _load(side: str, key: str) -> Callable[[Found], float]:
    return lambda found: statistics.median(found["throughput"]["load"][side][key])


def _cpu(side: str) -> Callable[[Found], float]:
    return lambda found: statistics.median(
        sum(run["cpu_us"].values()) for run in found["throughput"]["load"][side]["runs"]
    )


def _idle(key: str) -> Callable[[Found], float]:
    return lambda found: statistics.median(
        turn[key] for turn in found["throughput"]["idle_ms"]["embedded"]
    )


def _lanes(side: str, key: str) -> Callable[[Found], float]:
    return lambda found: statistics.median(
        turn[key]["p99"] for turn in found["lanes"]["lanes"][side]
    )


def _dead(kind: str) -> Callable[[Found], float]:
    return lambda found: statistics.median(
        pair["share"] for pair in found["dead"]["dead"] if pair["dead"] == kind
    )


def _distant(way: str, key: str) -> Callable[[Found], float]:
    return lambda found: statistics.median(run[key] for run in found["distant"]["runs"][way])


def _flat(journal: str) -> Callable[[Found], float]:
    def worst(found: Found) -> float:
        by_size = found["scale"]["rows"][journal]
        totals = {
            int(size): statistics.median(
                sum(cost for step, cost in one.items() if step != "look") for one in rounds
            )
            for size, rounds in by_size.items()
        }
        return totals[max(totals)] / totals[min(totals)]

    return worst


WANTED = (
    Wanted("messages/s, × plain, SQLite", 15, _load("embedded", "times_plain"), most=False),
    Wanted("messages/s, × plain, PostgreSQL", 15, _load("servers", "times_plain"), most=False),
    Wanted("messages/s, × BullMQ, SQLite", 2.5, _load("embedded", "times_node"), most=False),
    Wanted("messages/s, × BullMQ, PostgreSQL", 2.5, _load("servers", "times_node"), most=False),
    Wanted("CPU a message, SQLite, µs", 400, _cpu("embedded")),
    Wanted("CPU a message, PostgreSQL, µs", 400, _cpu("servers")),
    Wanted("idle latency, p50, ms", 7, _idle("p50")),
    Wanted("idle latency, p99, ms", 12, _idle("p99")),
    Wanted("under 70% load, p99, SQLite, ms", 500, _lanes("embedded", "load")),
    Wanted("under 70% load, p99, PostgreSQL, ms", 500, _lanes("servers", "load")),
    Wanted("urgent beside bulk, p99, SQLite, ms", 1000, _lanes("embedded", "high")),
    Wanted("urgent beside bulk, p99, PostgreSQL, ms", 1000, _lanes("servers", "high")),
    *(
        Wanted(f"beside a dead one: {kind}", 0.95, _dead(kind), most=False)
        for kind in ("refuses", "hangs", "black hole", "domain refused", "domain hangs")
    ),
    Wanted("20 ms, 100 connections, × plain", 200, _distant("near", "times_plain"), most=False),
    Wanted("200 ms, 200 connections, of 1 trip", 0.9, _distant("far", "of_one_trip"), most=False),
    Wanted("cost with the most rows, × least, SQLite", 1.15, _flat("sqlite")),
    Wanted("cost with the most rows, × least, PostgreSQL", 1.15, _flat("postgresql")),
    Wanted("memory at the end, MiB", 220, lambda found: sum(found["memory"]["embedded"][-1][1:])),
    Wanted(
        "--help, × importing typer", 2, lambda found: found["start"]["start"]["help_times_typer"]
    ),
    Wanted("up to the first message, s", 4, lambda found: found["start"]["start"]["up_accepted_s"]),
)


def commands(size: float) -> dict[str, list[str]]:
    """The arguments of each part; ``size`` 1 is the full one."""

    def n(count: float, least: int) -> str:
        return str(max(least, int(count * size)))

    return {
        "throughput": [
            *("--messages", n(20_000, 2000), "--plain", n(1500, 200)),
            *("--latency", n(100, 40), "--turns", n(3, 1)),
        ],
        "lanes": ["--seconds", f"{max(4.0, 10 * size):g}", "--turns", n(2, 1)],
        "dead": ["--messages", n(20_000, 3000)],
        "distant": ["--scale", f"{max(0.1, size):g}", "--turns", n(2, 1)],
        "scale": [
            *("--parts", "rows", "--rounds", n(3, 1)),
            *("--sizes", f"1000,{n(100_000, 20_000)}" + (",2000000" if size >= 1 else "")),
        ],
        "memory": ["--messages", n(200_000, 10_000), "--step", n(20_000, 2500)],
        "start": [],
    }


def main(options: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="0.2: about ten minutes")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, by comma")
    given = parser.parse_args(options)
    parts = [part for part in PARTS if part in given.parts.split(",")]
    found: dict[str, Any] = {}
    for part in parts:
        begun = time.monotonic()
        print(f"\n== {part}", flush=True)
        path = _run(part, commands(given.size)[part])
        if path is not None:
            found[part] = json.loads(path.read_text())
        print(f"({part}: {time.monotonic() - begun:.0f} s)", file=sys.stderr, flush=True)
    rows = seen(found)
    tell(rows)
    document = {
        "size": given.size,
        "wanted": [{"what": w.what, "bound": w.bound, "seen": value} for w, value in rows],
    }
    path = keep("whole", document)
    if "throughput" in found:
        picture = path.with_suffix(".svg")
        picture.write_text(drawn(found["throughput"]), encoding="utf-8")
        print(f"written: {picture}", file=sys.stderr)
    return 0


def _run(part: str, arguments: Sequence[str]) -> Path | None:
    """The file that a part wrote; its own tables go to standard output."""
    command = [sys.executable, "-m", "bench", part, *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    written = _WRITTEN.findall(done.stderr)
    if not written:
        print(f"{part} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return Path(written[-1])


def seen(found: Found) -> list[tuple[Wanted, float | None]]:
    """Every wanted figure with what was seen; None where its part did not run."""
    rows: list[tuple[Wanted, float | None]] = []
    for wanted in WANTED:
        try:
            rows.append((wanted, round(wanted.seen(found), 3)))
        except (KeyError, StopIteration, statistics.StatisticsError):
            rows.append((wanted, None))
    return rows


def tell(rows: Sequence[tuple[Wanted, float | None]]) -> None:
    print(f"\n{'':46}{'wanted':>10}{'seen':>10}")
    for wanted, value in rows:
        bound = f"{'≤' if wanted.most else '≥'} {wanted.bound:g}"
        told = "-" if value is None else f"{value:.4g}"
        verdict = "" if value is None or wanted.holds(value) else "   not reached"
        print(f"{wanted.what:46}{bound:>10}{told:>10}{verdict}")
