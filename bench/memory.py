"""``python -m bench memory``: what the processes hold, as more and more mail goes through.

Owns the steps and the table. A queue is filled and emptied step by step, and after each
every process of intake and worker says its proportional set size. What grows with the
number of messages is a leak, and the slope over the second half shows it.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.keeping import commit, keep
from bench.sides import Mailgate, Make, makers
from bench.sinks import LoadSink
from bench.workload import bodies, message

#: Seconds for one step's messages: the machine may be busy with other things.
_PATIENCE = 900.0

#: The order of the table: the worker's main process first, then what it forked.
ROLES = ("intake", "main", "child", "child")


@dataclass(frozen=True, slots=True)
class Held:
    """PSS in MiB by process, when ``messages`` were sent."""

    messages: int
    by_role: tuple[float, ...]

    @property
    def together(self) -> float:
        return sum(self.by_role)


def held(side: Mailgate) -> tuple[float, ...]:
    """MiB of intake, the worker's main process and each of its children.

    Not of what ends them with the benchmark (``tests/servers/keeper.py``).
    """
    _keeper, intake = machine.tree(side.parts["intake"]._process.pid)
    _keeper, main, *children = machine.tree(side.parts["worker"]._process.pid)
    return tuple(machine.pss_of(pid) for pid in (intake, main, *sorted(children)))


def slope(found: list[Held]) -> float:
    """MiB for each 100,000 messages more, by least squares over the second half."""
    half = found[len(found) // 2 :]
    x = [one.messages / 100_000 for one in half]
    y = [one.together for one in half]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - middle_x) ** 2 for a in x)
    if not spread:
        return 0.0
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / spread


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench memory", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--step", type=int, default=20_000, help="messages between two looks")
    parser.add_argument("--sides", default="embedded", help="embedded, servers, by comma")
    parser.add_argument(
        "--attachments", type=int, metavar="N", help="instead: N messages with a file each at once"
    )
    parser.add_argument("--size", type=float, default=5.0, help="of such a file, in MB")
    given = parser.parse_args(arguments)
    names = [n for n in ("embedded", "servers") if n in given.sides.split(",")]
    directory = Path(tempfile.mkdtemp(prefix="mgm-"))
    directory.chmod(0o711)
    document = {}
    try:
        with makers(directory, names) as make:
            for name in names:
                if given.attachments:
                    _peak(make[name], directory / name[0], given.attachments, given.size)
                    continue
                found = _grow(make[name], directory / name[0], given.messages, given.step)
                document[name] = [
                    [one.messages, *(round(x, 1) for x in one.by_role)] for one in found
                ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if document:
        keep("memory", {"commit": commit(), **document})
    return 0


def _grow(make: Make, directory: Path, messages: int, step: int) -> list[Held]:
    sink = LoadSink(directory.with_name(f"{directory.name}-sink"))
    side = make(directory, sink.port)
    assert isinstance(side, Mailgate)
    found = []
    try:
        side.start()
        time.sleep(5)
        print(f"\n{side.name}\n{'messages':>10}" + "".join(f"{r:>9}" for r in ROLES) + "  together")
        found.append(_look(side, 0))
        while (sent := found[-1].messages) < messages:
            for body in bodies(min(step, messages - sent), f"m{sent}"):
                side.publish(body)
            sent = min(sent + step, messages)
            sink.wait(sent, _PATIENCE)
            time.sleep(2)
            found.append(_look(side, sent))
        side.check(messages)
        print(f"slope over the second half: {slope(found):+.2f} MiB for each 100,000 messages")
        return found
    finally:
        side.stop()
        sink.stop()


def _peak(make: Make, directory: Path, count: int, megabytes: float) -> None:
    """What each process holds at most while ``count`` large messages wait at once."""
    sink = LoadSink(directory.with_name(f"{directory.name}-sink"))
    side = make(directory, sink.port)
    assert isinstance(side, Mailgate)
    try:
        side.start()
        for body in bodies(1000, "small"):
            side.publish(body)
        sink.wait(1000, _PATIENCE)
        time.sleep(2)
        print(f"\n{side.name}: {count} messages with a file of {megabytes:g} MB each, at once")
        print(f"{'':>10}" + "".join(f"{r:>9}" for r in ROLES) + "  together")
        before = _look(side, 1000).by_role
        content = base64.b64encode(os.urandom(int(megabytes * 1e6))).decode()
        file = {"filename": "report.bin", "content": content}
        side.load(
            [json.dumps({**message(n, "f"), "attachments": [file]}).encode() for n in range(count)]
        )
        begun = time.monotonic()
        side.go()
        most = list(before)
        together = 0.0
        while sink.count() < 1000 + count:
            now = held(side)
            most = [max(pair) for pair in zip(most, now, strict=True)]
            together = max(together, sum(now))
            if time.monotonic() - begun > _PATIENCE:
                raise TimeoutError(f"the sink has {sink.count() - 1000} of {count}")
            time.sleep(0.02)
        took = time.monotonic() - begun
        print(f"{'at most':>10}" + "".join(f"{x:9.1f}" for x in most) + f"{together:10.1f}")
        print(f"all accepted after {took:.1f} s: {count * megabytes / took:.0f} MB/s")
        side.check(1000 + count)
        time.sleep(3)
        _look(side, 1000 + count)
    finally:
        side.stop()
        sink.stop()


def _look(side: Mailgate, sent: int) -> Held:
    one = Held(sent, held(side))
    print(f"{sent:>10}" + "".join(f"{x:9.1f}" for x in one.by_role) + f"{one.together:10.1f}")
    sys.stdout.flush()
    return one
