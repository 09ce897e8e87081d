"""Running processes of ``./dev bench scale``: while much waits, and when there are more of them.

Owns both runs. What they use is taken from /proc, servers included; a mail that waits is put
into the journal by SQL, as intake would have written it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import filling, machine
from bench.runs import PATIENCE, WARM
from bench.sides import Mailgate, Make
from bench.sinks import LoadSink
from bench.workload import bodies

#: Ten processes that have just begun are dearer than ten that go on: of less than these many
#: times ``--messages`` the beginning is what is seen.
POURED = 10
#: What so many may use of one core more than an idle system does.
MOST = 0.02
LIMITED = "waits.example"
#: Until a change is seen by everybody, and what it caused is over (seconds).
SETTLED = 8.0
EXTRA = f"""
[limits.domain]
"{LIMITED}" = "1/h"
"""


def waiting(
    make: Mapping[str, Make], directory: Path, count: int, seconds: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Shares of a core by side, by what waits, and by part."""
    found = {}
    for name, made in make.items():
        sink = LoadSink(directory / f"w{name[0]}-sink")
        side = made(directory / f"w{name[0]}", sink.port)
        assert isinstance(side, Mailgate)
        side.extra = EXTRA
        try:
            side.start()
            found[name] = {"nothing": _used(side, seconds)}
            filling.queue(side.urls()[1], count, LIMITED)
            filling.settle_down(side.urls()[1])
            found[name]["limit"] = _used(side, seconds)
            side.command("relays", "pause", "sink", "--reason", "bench")
            found[name]["pause"] = _used(side, seconds)
            for what, shares in found[name].items():
                print(f"{name}, {what}: {_spelled(shares)}", file=sys.stderr, flush=True)
        finally:
            side.stop()
            sink.stop()
    return found


def _used(side: Mailgate, seconds: float) -> dict[str, float]:
    time.sleep(SETTLED)
    parts = side.parts | side.servers()
    before = {name: machine.cpu(part._process.pid) for name, part in parts.items()}
    begun = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    return {n: (machine.cpu(p._process.pid) - before[n]) / passed for n, p in parts.items()}


def _spelled(shares: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {share:.2%}" for name, share in shares.items())


def tell_waiting(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> bool:
    """Print the table; whether what waits costs no more than it may."""
    good = True
    print(f"\n{'of a core, while they wait':34}{'together':>9}{'more':>9}")
    for name, by_kind in found.items():
        idle = sum(by_kind["nothing"].values())
        for what, shares in by_kind.items():
            more = sum(shares.values()) - idle
            good = good and more <= MOST
            print(
                f"{f'{name}, behind: {what}':34}{sum(shares.values()):9.2%}{more:9.2%}"
                f"   {_spelled(shares)}"
            )
    return good


def processes(
    make: Mapping[str, Make], directory: Path, rounds: int, messages: int
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Rate and processor time a message by side and by how many processes there are."""
    kinds = {"1 worker, 1 intake": (1, 1), "2 workers, 1 intake": (2, 1), "2, 10 intakes": (2, 10)}
    found: dict[str, dict[str, list[dict[str, float]]]] = {
        name: {kind: [] for kind in kinds} for name in make
    }
    for turn in range(rounds):
        for name, made in make.items():
            for number, (kind, many) in enumerate(kinds.items()):
                where = directory / f"p{name[0]}{turn}{number}"
                row = _poured(made, where, messages * POURED, *many)
                found[name][kind].append(row)
                told = f"{row['rate']:.0f}/s, {row['cpu']:.0f} µs CPU, {row['cores']:.2f} cores"
                print(f"{name}, {kind}: {told}", file=sys.stderr, flush=True)
    return found


def _poured(
    make: Make, directory: Path, messages: int, workers: int, intakes: int
) -> dict[str, float]:
    """Messages onto the queue of processes that are all up, until the relay has them."""
    sink = LoadSink(directory.with_name(f"{directory.name}-sink"))
    side = make(directory, sink.port)
    assert isinstance(side, Mailgate)
    side.children, side.intakes = workers, intakes
    try:
        side.start()
        side.pour(bodies(WARM, f"{directory.name}w"))
        sink.wait(WARM, 60)
        side.check(WARM)
        ready = bodies(messages, directory.name)
        parts = side.parts | side.servers() | {"sink": sink.daemon}
        spent = -sum(machine.cpu(part._process.pid) for part in parts.values())
        begun = time.monotonic()
        for at in range(0, messages, 1000):
            side.pour(ready[at : at + 1000])
        seconds = sink.wait(WARM + messages, PATIENCE) - begun
        side.check(WARM + messages)
        spent += sum(machine.cpu(part._process.pid) for part in parts.values())
    except TimeoutError as error:
        raise TimeoutError(f"{error}; the journal says {side.states()}") from None
    finally:
        side.stop()
        sink.stop()
    return {
        "rate": messages / seconds,
        "cpu": spent / messages * 1e6,
        "cores": spent / seconds,
    }


def tell_processes(found: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> None:
    heads = f"{'a second':>10}{'× first':>9}{'µs CPU':>9}{'× first':>9}{'cores':>7}"
    print(f"\n{'how many processes':34}{heads}")
    for name, kinds in found.items():
        first = next(iter(kinds.values()))
        for kind, runs in kinds.items():
            middle = {m: statistics.median(run[m] for run in runs) for m in runs[0]}
            rates = [a["rate"] / b["rate"] for a, b in zip(runs, first, strict=True)]
            costs = [a["cpu"] / b["cpu"] for a, b in zip(runs, first, strict=True)]
            print(
                f"{f'{name}, {kind}':34}{middle['rate']:10.0f}{statistics.median(rates):9.2f}"
                f"{middle['cpu']:9.0f}{statistics.median(costs):9.2f}{middle['cores']:7.2f}"
            )
