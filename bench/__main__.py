"""``python -m bench``: mailgate beside the plain pattern, in turns, in one session."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import (
    bullmq,
    costs,
    dead,
    distant,
    lanes,
    limits,
    memory,
    rendering,
    runs,
    scale,
    start,
    steps,
    whole,
)
from bench.budget import Budget
from bench.keeping import RESULTS, commit
from bench.runs import Idle, Load
from bench.sides import Make, makers

SIDES = ("plain", "node", "embedded", "servers")
PEERS = ("plain", "node")
VERBS: dict[str, Callable[[list[str]], int]] = {
    "render": rendering.main,
    "steps": steps.main,
    "distant": distant.main,
    "dead": dead.main,
    "lanes": lanes.main,
    "limits": limits.main,
    "scale": scale.main,
    "memory": memory.main,
    "start": start.main,
}
THROUGHPUT = (
    *("--messages", "--plain", "--latency", "--turns", "--sides", "--budget", "--py-spy", "--keep"),
)
#: Messages for the costs by step.
WALKED = 4000


def main() -> int:
    verb, rest = (*sys.argv[1:2], ""), sys.argv[2:]
    if verb[0] in VERBS:
        return VERBS[verb[0]](rest)
    if verb[0] == "throughput":
        return throughput(rest)
    # With options of the throughput alone it is that alone.
    alone = {option.partition("=")[0] for option in sys.argv[1:]} & set(THROUGHPUT)
    return (throughput if alone else whole.main)(sys.argv[1:])


def throughput(options: list[str]) -> int:
    """Rates, processor time and idle latency of all sides, in turns."""
    parser = argparse.ArgumentParser(prog="bench throughput", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="a run of ours; 0: none")
    parser.add_argument("--plain", type=int, default=1_500, help="a run of the plain pattern")
    parser.add_argument("--latency", type=int, default=100, help="single messages a turn; 0: none")
    parser.add_argument("--turns", type=int, default=3, help="of all sides")
    parser.add_argument("--sides", default=",".join(SIDES), help="which, by comma")
    parser.add_argument("--budget", action="store_true", help="also profile, by py-spy")
    parser.add_argument("--py-spy", help="where py-spy is")
    parser.add_argument("--keep", action="store_true", help="leave logs and journals behind")
    given = parser.parse_args(options)
    names = [name for name in SIDES if name in given.sides.split(",")]
    if "node" in names and (why := bullmq.missing()):
        _say(f"left out: BullMQ and nodemailer: {why}")
        names.remove("node")
    directory = Path(tempfile.mkdtemp(prefix="mgb-"))
    directory.chmod(0o711)
    loads: dict[str, list[Load]] = {name: [] for name in names}
    idles: dict[str, list[Idle]] = {name: [] for name in names}
    try:
        with makers(directory, names) as make:
            for turn in range(given.turns):
                # Back and forth, so that a machine that gets slower harms no side more.
                order = names if turn % 2 == 0 else names[::-1]
                for name in order if given.messages else ():
                    count = given.messages
                    if name in PEERS:
                        count = min(count, given.plain * (4 if name == "node" else 1))
                    found = runs.load(make[name], directory / f"{name[0]}{turn}", count)
                    loads[name].append(found)
                    _say(
                        f"turn {turn + 1}: {found.side}: {found.rate:.0f} messages/s,"
                        f" {found.cpu_total:.0f} µs CPU a message"
                    )
                for name in order if given.latency else ():
                    idle = runs.idle(make[name], directory / f"i{name[0]}{turn}", given.latency)
                    idles[name].append(idle)
                    _say(f"turn {turn + 1}: {idle.side}: idle {idle.at(0.5):.1f} ms")
            for name in names if given.budget else ():
                if name not in PEERS:
                    _profile(directory, name, make[name], given.messages or 8000, given.py_spy)
    finally:
        if given.keep:
            _say(f"left behind: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if given.messages and given.turns:
        _print_loads(loads)
    if given.latency and given.turns:
        _print_idles(idles)
    budget: dict[str, float] = {}
    if loads.get("embedded"):
        cpu = statistics.median(found.cpu_total for found in loads["embedded"])
        by_step = costs.by_step(min(WALKED, given.messages))
        costs.tell(by_step, cpu)
        budget = costs.with_rest(by_step, cpu)
    print("\nRead the ratios; the other figures are this machine's, at this hour.")
    _write(loads, idles, budget)
    return 0


def _profile(directory: Path, name: str, make: Make, messages: int, program: str | None) -> None:
    where = directory / f"budget-{name}"
    where.mkdir()
    budget = Budget(where, program)
    found = runs.load(make, directory / f"b{name[0]}", messages, watch=budget.watch)
    print(f"\nbudget of {found.side}:\n{budget.table(found.cpu)}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def ratios(loads: dict[str, list[Load]], name: str, peer: str = "plain") -> list[float]:
    """Messages a second against a peer's of the same turn."""
    return [a.rate / b.rate for a, b in zip(loads[name], loads.get(peer, []), strict=False)]


def by_work(loads: dict[str, list[Load]], name: str) -> list[float]:
    """The plain pattern's CPU a message, servers and sink included, against a side's.

    What the ratio of the rates would be if nothing else ran on the machine.
    """
    return [b.work / a.work for a, b in zip(loads[name], loads.get("plain", []), strict=False)]


def _print_loads(loads: dict[str, list[Load]]) -> None:
    middle = statistics.median
    what = "all on the queue to all accepted"
    heads = f"{'× plain':>20}{'by CPU':>8}{'× BullMQ':>10}"
    print(f"\n{what:34}{heads}{'msg/s':>8}{'µs CPU':>8}{'MiB':>6}")
    for name, found in loads.items():
        against = ratios(loads, name) if name != "plain" else []
        times = f"{middle(against):.1f} ({min(against):.1f}-{max(against):.1f})" if against else ""
        by_cpu = f"{middle(by_work(loads, name)):.1f}" if against else ""
        node = ratios(loads, name, "node") if name not in PEERS else []
        by_node = f"{middle(node):.1f}" if node else ""
        print(
            f"{found[0].side:34}{times:>20}{by_cpu:>8}{by_node:>10}"
            f"{middle(x.rate for x in found):8.0f}"
            f"{middle(x.cpu_total for x in found):8.0f}{middle(x.pss for x in found):6.0f}"
        )
    print("\nµs CPU a message, by process (median):")
    for found in loads.values():
        for side, kind in ((found[0].side, "cpu"), ("  its servers", "servers_cpu")):
            parts = {n: middle(getattr(x, kind)[n] for x in found) for n in getattr(found[0], kind)}
            print(f"  {side:32}" + "".join(f"  {n} {v:.0f}" for n, v in parts.items()))


def _print_idles(idles: dict[str, list[Idle]]) -> None:
    print(f"\n{'one message, queue to acceptance':34}{'p50':>8}{'p90':>8}{'p99':>8}   ms")
    for found in idles.values():
        whole = Idle(found[0].side, tuple(sorted(t for one in found for t in one.times)))
        print(f"{whole.side:34}{whole.at(0.5):8.1f}{whole.at(0.9):8.1f}{whole.at(0.99):8.1f}")


def _write(
    loads: dict[str, list[Load]], idles: dict[str, list[Idle]], budget: dict[str, float]
) -> None:
    RESULTS.mkdir(exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    document = {
        "at": now,
        "commit": commit(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": {
            name: {
                "side": found[0].side,
                "times_plain": [round(x, 2) for x in ratios(loads, name)],
                "times_node": [round(x, 2) for x in ratios(loads, name, "node")],
                "times_plain_by_cpu": [round(x, 2) for x in by_work(loads, name)],
                "runs": [
                    {
                        "messages": x.messages,
                        "seconds": round(x.seconds, 3),
                        "rate": round(x.rate, 1),
                        "cpu_us": {n: round(v, 1) for n, v in x.cpu.items()},
                        "servers_cpu_us": {n: round(v, 1) for n, v in x.servers_cpu.items()},
                        "pss_mib": round(x.pss, 1),
                    }
                    for x in found
                ],
            }
            for name, found in loads.items()
            if found
        },
        "budget_us": {step: round(cost, 1) for step, cost in budget.items()},
        "idle_ms": {
            name: [
                {
                    "messages": len(x.times),
                    "p50": round(x.at(0.5), 2),
                    "p90": round(x.at(0.9), 2),
                    "p99": round(x.at(0.99), 2),
                }
                for x in found
            ]
            for name, found in idles.items()
        },
    }
    path = RESULTS / f"{now.replace(':', '')}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    _say(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
