"""``./dev bench dead``: what a dead relay, or a dead destination, costs the mail beside it.

Owns the pairs: the same mail to a healthy relay, with and without some that goes nowhere,
in turns. The rate is that of the healthy mail alone, from "all on the queue" to "the last
of it accepted"; each ratio is against the two runs around it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import machine
from bench.keeping import keep
from bench.runs import PATIENCE, WARM
from bench.sides import Mailgate, Make, makers
from bench.sinks import FarSink
from bench.workload import SENDER, bodies, message
from tests.servers.process import free_port

#: The share of all mail that is for the dead one.
SHARE = 0.05
NOWHERE = "dead.example"


@contextlib.contextmanager
def _refuses() -> Iterator[int]:
    yield free_port()


@contextlib.contextmanager
def _hangs() -> Iterator[int]:
    """Connections are accepted, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        kept: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in kept:
                one.close()


@contextlib.contextmanager
def _swallows() -> Iterator[int]:
    """Nothing ever answers a connection: the queue of those not accepted is full."""
    with socket.socket() as server, contextlib.ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(2):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        time.sleep(0.05)
        yield server.getsockname()[1]


RELAYS: Mapping[str, Callable[[], contextlib.AbstractContextManager[int]]] = {
    "refuses": _refuses,
    "hangs": _hangs,
    "black hole": _swallows,
}
#: A destination beside others at the healthy relay: it answers RCPT so; '' is never.
DOMAINS = {"domain refused": "451 4.4.1 No answer from host", "domain hangs": ""}
KINDS = (*RELAYS, *DOMAINS)


@dataclass(frozen=True, slots=True)
class Run:
    """``cpu`` is microseconds of mailgate's processes for each healthy mail."""

    rate: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A run with the dead one, against those right before and after it."""

    dead: str
    beside: Run
    before: Run
    after: Run

    @property
    def share(self) -> float:
        """Of the throughput without it."""
        return self.beside.rate / statistics.mean((self.before.rate, self.after.rate))

    @property
    def work(self) -> float:
        """CPU a healthy mail, against that without it."""
        return self.beside.cpu / statistics.mean((self.before.cpu, self.after.cpu))


def main(options: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench dead", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="healthy ones a run")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--kinds", default=",".join(KINDS), help="which, by comma")
    parser.add_argument("--side", default="embedded", choices=("embedded", "servers"))
    parser.add_argument("--keep", action="store_true", help="leave logs and journals behind")
    given = parser.parse_args(options)
    kinds = [kind for kind in KINDS if kind in given.kinds.split(",")]
    found = measured(given.side, kinds, given.messages, given.turns, keep=given.keep)
    tell(found)
    keep("dead", {"dead": document(found)})
    return 0


def measured(
    side: str, kinds: Sequence[str], messages: int, turns: int, *, keep: bool = False
) -> list[Pair]:
    """Every kind in every turn, each run with it between two without."""
    directory = Path(tempfile.mkdtemp(prefix="mgd-"))
    directory.chmod(0o711)
    found: list[Pair] = []
    number = 0
    try:
        with makers(directory, [side]) as make:

            def run(kind: str) -> Run:
                nonlocal number
                number += 1
                return _run(make[side], directory / str(number), kind, messages)

            before = run("")
            for turn in range(turns):
                for kind in kinds if turn % 2 == 0 else kinds[::-1]:
                    beside, after = run(kind), run("")
                    pair = Pair(kind, beside, before, after)
                    found.append(pair)
                    print(f"{kind}: {pair.share:.3f} of the throughput", file=sys.stderr)
                    before = after
    finally:
        if keep:
            print(f"left behind: {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return found


def document(found: Sequence[Pair]) -> list[dict[str, object]]:
    """For a file of results."""
    return [
        asdict(pair) | {"share": round(pair.share, 4), "work": round(pair.work, 4)}
        for pair in found
    ]


def tell(found: Sequence[Pair]) -> None:
    print(f"\n{'beside a dead one':20}{'messages/s':>12}{'without':>10}{'of it':>8}{'CPU':>8}")
    for pair in found:
        without = statistics.mean((pair.before.rate, pair.after.rate))
        print(
            f"{pair.dead:20}{pair.beside.rate:12.0f}{without:10.0f}"
            f"{pair.share:8.3f}{pair.work:8.3f}"
        )


def _run(make: Make, directory: Path, kind: str, messages: int) -> Run:
    """Healthy mail, and some for a dead one of ``kind`` among it; '' for none."""
    sink = DeafSink(directory.with_name(f"{directory.name}-sink"), DOMAINS.get(kind))
    side = make(directory, sink.port)
    assert isinstance(side, Mailgate)
    with RELAYS.get(kind, _refuses)() as port:
        side.extra = _settings(port)
        try:
            side.start()
            for body in bodies(WARM, "warm"):
                side.publish(body)
            sink.wait(WARM, 60)
            side.check(WARM)
            side.load(_mail(kind, messages))
            time.sleep(1.0)
            worker = side.parts["worker"]._process.pid
            spent = -machine.cpu(worker)
            begun = side.go()
            intake = side.parts["intake"]._process.pid
            spent -= machine.cpu(intake)
            ended = sink.wait(WARM + messages, PATIENCE)
            spent += machine.cpu(worker) + machine.cpu(intake)
        finally:
            side.stop()
            sink.stop()
    return Run(round(messages / (ended - begun), 1), round(spent / messages * 1e6, 1))


class DeafSink(FarSink):
    """A relay at which one destination is dead: ``answer`` is what it says of it, '' nothing."""

    def __init__(self, directory: Path, answer: str | None) -> None:
        self._answer = answer
        super().__init__(directory, 0.0)

    def _command(self) -> list[str]:
        if self._answer is None:
            return super()._command()
        return [*super()._command(), "--for", NOWHERE, self._answer]


def _settings(port: int) -> str:
    return f"""
relays = ["sink"]
[relays.dead]
host = "127.0.0.1"
port = {port}
security = "none"
[streams.nowhere]
from = "{SENDER}"
relays = ["dead"]
"""


def _mail(kind: str, messages: int) -> list[bytes]:
    """Healthy mail in its order; what is for the dead one lies among it by chance."""
    mail = bodies(messages, "well")
    if not kind:
        return mail
    chance = random.Random(11)
    for number in range(int(messages * SHARE / (1 - SHARE))):
        said = message(number, "dead")
        if kind in DOMAINS:
            said["to"] = [f"customer{number}@{NOWHERE}"]
        else:
            said["stream"] = "nowhere"
        mail.insert(chance.randrange(len(mail)), json.dumps(said).encode())
    return mail
