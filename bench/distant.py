"""``./dev bench distant``: relays whose every answer comes late, beside the plain pattern.

Owns the runs at 20 ms with 100 connections in all and at 200 ms with 200, and their
file in ``bench/results``. The plain pattern runs at 20 ms, right before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import runs
from bench.runs import Load
from bench.sides import Embedded, Make, makers
from bench.sinks import FarSink

RESULTS = Path(__file__).parent / "results"
#: Delay of an answer (seconds), connections in all, messages.
NEAR, FAR = (0.02, 100, 20_000), (0.2, 200, 10_000)
PROCESSES = 2


def main(options: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench distant", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the messages")
    parser.add_argument("--plain", type=int, default=150, help="messages of the plain pattern")
    given = parser.parse_args(options)
    directory = Path(tempfile.mkdtemp(prefix="mgb-"))
    directory.chmod(0o711)
    found: list[dict[str, float | str]] = []
    try:
        with makers(directory, ("plain", "embedded")) as make:
            plain = _run(make["plain"], directory / "p", given.plain, NEAR[0], 10)
            found.append(_row(plain, NEAR[0], PROCESSES, plain))
            for number, (delay, connections, messages) in enumerate((NEAR, FAR)):
                each = connections // PROCESSES
                side = _distant(make["embedded"], each)
                load = _run(side, directory / f"e{number}", int(messages * given.scale), delay, 300)
                found.append(_row(load, delay, connections, plain if delay == NEAR[0] else None))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _print(found)
    now = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    path = RESULTS / f"distant-{now}.json"
    path.write_text(json.dumps({"at": now, "runs": found}, indent=1) + "\n")
    print(f"written: {path}", file=sys.stderr)
    return 0


def _distant(make: Make, connections: int) -> Make:
    """With so many connections in each process, and work at hand for all of them."""

    def made(directory: Path, port: int) -> Embedded:
        side = make(directory, port)
        assert isinstance(side, Embedded)
        side.connections = connections
        side.extra = f"[worker]\nconversations = {4 * connections}\nreserved = 0\n"
        return side

    return made


def _run(make: Make, directory: Path, messages: int, delay: float, warm: int) -> Load:
    def sink(where: Path) -> FarSink:
        return FarSink(where, delay)

    return runs.load(make, directory, messages, sink=sink, warm=warm)


def _row(load: Load, delay: float, connections: int, plain: Load | None) -> dict[str, float | str]:
    row: dict[str, float | str] = {
        "side": load.side,
        "delay_ms": delay * 1000,
        "connections": connections,
        "messages": load.messages,
        "rate": round(load.rate, 1),
        #: Of what so many connections can do at one round trip a message.
        "of_one_round_trip": round(load.rate * delay / connections, 3),
        "cpu_us": round(load.cpu_total, 1),
    }
    if plain is not None:
        row["times_plain"] = round(load.rate / plain.rate, 1)
    return row


def _print(found: Sequence[dict[str, float | str]]) -> None:
    heads = ("delay_ms", "connections", "rate", "of_one_round_trip", "times_plain", "cpu_us")
    print(f"{'':28}" + "".join(f"{head.replace('_', ' '):>18}" for head in heads))
    for row in found:
        print(f"{row['side']:28}" + "".join(f"{row.get(head, ''):>18}" for head in heads))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
