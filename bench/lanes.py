"""``./dev bench lanes``: how long mail takes while there is more of it.

Owns two questions to a running mailgate, asked in turns: how long mail takes under 70% of
the load that the machine was just seen to carry, and how long urgent mail takes while
more bulk mail waits than the machine can send. Wall time: another's work shows in it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import machine
from bench.keeping import keep
from bench.runs import PATIENCE, WARM
from bench.sides import INBOX, Mailgate, Make, makers
from bench.sinks import BookSink
from bench.workload import SENDER, bodies, message

SHARE = 0.7
#: Urgent mails a second beside the bulk.
URGENT = 40.0
#: What is published in one go came within this (seconds).
TICK = 0.005
OWN = f"{INBOX}.accounts"
STREAMS = f"""
[intake]
unknown_producers = "accept"
[producers.accounts]
queue = "{OWN}"
[streams.urgent]
from = "{SENDER}"
lane = "high"
[streams.newsletter]
from = "{SENDER}"
lane = "bulk"
"""


@dataclass(frozen=True, slots=True)
class Times:
    """Queue to acceptance of some mails (milliseconds); rates are messages a second."""

    messages: int
    p50: float
    p99: float
    longest: float
    #: Of all mail meanwhile, as the relay took it.
    rate: float
    #: By part, what mailgate, its servers and the relay used of the machine's cores.
    cores: dict[str, float]


@dataclass(frozen=True, slots=True)
class Turn:
    """``capable`` is what was seen right before, messages a second."""

    capable: float
    load: Times
    #: While the bulk is being taken in, and while all of it waits in its lane.
    filling: Times | None
    high: Times


def main(options: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench lanes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each question")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--sides", default="embedded,servers", help="which, by comma")
    parser.add_argument("--keep", action="store_true", help="leave logs and journals behind")
    given = parser.parse_args(options)
    names = [n for n in ("embedded", "servers") if n in given.sides.split(",")]
    found = measured(names, given.seconds, given.turns, keep=given.keep)
    tell(found)
    keep("lanes", {"lanes": document(found)})
    return 0


def measured(
    names: Sequence[str], seconds: float, turns: int, *, keep: bool = False
) -> dict[str, list[Turn]]:
    """Every turn of each side."""
    directory = Path(tempfile.mkdtemp(prefix="mgl-"))
    directory.chmod(0o711)
    found: dict[str, list[Turn]] = {name: [] for name in names}
    try:
        with makers(directory, names) as make:
            for turn in range(turns):
                for name in names if turn % 2 == 0 else names[::-1]:
                    where = directory / f"{name[0]}{turn}"
                    found[name].append(_asked(make[name], where, seconds))
    finally:
        if keep:
            print(f"left behind: {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return found


def document(found: Mapping[str, Sequence[Turn]]) -> dict[str, list[dict[str, object]]]:
    """For a file of results."""
    return {name: [asdict(turn) for turn in turns] for name, turns in found.items()}


def tell(found: Mapping[str, Sequence[Turn]]) -> None:
    heads = ("messages", "a second", "cores", "p50", "p99", "longest")
    print(f"\n{'queue to acceptance':34}" + "".join(f"{head:>10}" for head in heads) + "   ms")
    for name, turns in found.items():
        for turn in turns:
            rows = {
                f"70% of {turn.capable:.0f}/s": turn.load,
                "urgent, bulk being taken in": turn.filling,
                "urgent, bulk lane full": turn.high,
            }
            for what, times in rows.items():
                if times is not None:
                    cores = sum(times.cores.values())
                    print(
                        f"{name + ': ' + what:34}{times.messages:10}{times.rate:10.0f}"
                        f"{cores:10.2f}{times.p50:10.0f}{times.p99:10.0f}{times.longest:10.0f}"
                    )


def _asked(make: Make, directory: Path, seconds: float) -> Turn:
    """Both questions, to one running side."""
    sink = BookSink(directory.with_name(f"{directory.name}-sink"))
    side = make(directory, sink.port)
    assert isinstance(side, Mailgate)
    side.extra = STREAMS
    total = WARM
    try:
        side.start()
        for body in bodies(WARM, "warm"):
            side.publish(body)
        sink.wait(total, 60)
        # A first guess, to know how much is too much.
        guess, total = _emptied(side, sink, 2000, total)
        capable, total = _overrun(side, sink, guess * 1.3, seconds / 2, total)
        load, total = _loaded(side, sink, capable * SHARE, seconds, total)
        filling, high, total = _crowded(side, sink, capable, seconds, total)
        side.check(total)
    finally:
        side.stop()
        sink.stop()
    return Turn(capable, load, filling, high)


def _emptied(side: Mailgate, sink: BookSink, count: int, total: int) -> tuple[float, int]:
    side.load(bodies(count, "guess"))
    begun = side.go()
    total += count
    took = sink.wait(total, PATIENCE) - begun
    side.check(total)
    return count / took, total


def _overrun(
    side: Mailgate, sink: BookSink, rate: float, seconds: float, total: int
) -> tuple[float, int]:
    """What comes out while more comes in than can, publishing and taking in included."""
    begun = time.monotonic()
    sent = _published(side.pour, bodies(int(rate * seconds), "able"), rate, lambda: True)
    ended = time.monotonic()
    total += len(sent)
    sink.wait(total, PATIENCE)
    side.check(total)
    # The first of it comes into empty places.
    begun += seconds / 5
    took = sum(begun <= at < ended for at in sink.book("able").values())
    return took / (ended - begun), total


def _loaded(
    side: Mailgate, sink: BookSink, rate: float, seconds: float, total: int
) -> tuple[Times, int]:
    """Messages at random moments, ``rate`` a second."""
    made = bodies(int(rate * seconds), "load")
    meter = _Meter(side, sink)
    sent = _published(side.pour, made, rate, lambda: True)
    used = meter()
    total += len(sent)
    sink.wait(total, PATIENCE)
    took = sink.book("load")
    return _times({n: took[n] - at for n, at in sent.items()}, _rate(took), used), total


def _crowded(
    side: Mailgate, sink: BookSink, capable: float, seconds: float, total: int
) -> tuple[Times | None, Times, int]:
    """Urgent mail while bulk mail is taken in, and then waits in its lane."""
    # Of what comes in at once more than half is sent before the last of it is in.
    count = int(capable * seconds * 2.5)
    side.load([_to("newsletter", n, "bulk") for n in range(count)])
    urgent = [_to("urgent", n, "high") for n in range(int(URGENT * seconds * 10))]
    begun = side.go()
    meter, accepted = _Meter(side, sink), 0.0
    busy: dict[str, float] = {}

    def wanted() -> bool:
        """While bulk mail waits, until ``seconds`` after the last was taken in."""
        nonlocal accepted, busy
        now = time.monotonic()
        if not accepted and side.taken_in() >= total + count:
            accepted, busy = now, meter()
        return sink.count() < total + 0.9 * count and not (accepted and now - accepted > seconds)

    sent = _published(lambda some: side.pour(some, OWN), urgent, URGENT, wanted)
    ended, used = time.monotonic(), meter()
    total += count + len(sent)
    sink.wait(total, PATIENCE)
    took, bulk = sink.book("high"), sink.book("bulk")
    waits = {n: took[n] - at for n, at in sent.items()}
    rates = [
        sum(a <= at < b for at in bulk.values()) / max(b - a, 1e-9)
        for a, b in ((begun, accepted), (accepted, ended))
    ]
    before = {n: waits[n] for n, at in sent.items() if at < accepted}
    after = {n: waits[n] for n, at in sent.items() if at >= accepted}
    if not accepted or len(after) < URGENT:
        raise RuntimeError(f"the bulk was gone too soon: {len(after)} urgent mails beside it")
    filling = _times(before, rates[0], busy) if before else None
    return filling, _times(after, rates[1], used), total


def _published(
    pour: Callable[[list[bytes]], None],
    made: Sequence[bytes],
    rate: float,
    wanted: Callable[[], bool],
) -> dict[int, float]:
    """The moment (monotonic) of each, while it is ``wanted``; moments are due by chance."""
    chance = random.Random(7)
    sent: dict[int, float] = {}
    due = asked = time.monotonic()
    while len(sent) < len(made):
        now = time.monotonic()
        if now - asked > 0.2:
            asked = now
            if not wanted():
                break
        some = []
        while due <= now and len(sent) < len(made):
            # Who publishes late because the machine is busy counts that too.
            sent[len(sent)] = due
            some.append(made[len(sent) - 1])
            due += chance.expovariate(rate)
        if some:
            pour(some)
        time.sleep(max(0.0, min(TICK, due - time.monotonic())) or TICK / 5)
    return sent


def _to(stream: str, number: int, run: str) -> bytes:
    said = message(number, run) | {"stream": stream}
    if stream == "urgent":
        said["producer"] = "accounts"
    return json.dumps(said, ensure_ascii=False).encode()


def _rate(took: Mapping[int, float]) -> float:
    return len(took) / (max(took.values()) - min(took.values()))


class _Meter:
    """Cores in use, by part, since it was last asked."""

    def __init__(self, side: Mailgate, sink: BookSink) -> None:
        parts = {**side.parts, **side.servers(), "relay": sink.daemon}
        self._roots = {name: part._process.pid for name, part in parts.items()}
        self._last = self._read()

    def _read(self) -> tuple[float, dict[str, float]]:
        return time.monotonic(), {name: machine.cpu(pid) for name, pid in self._roots.items()}

    def __call__(self) -> dict[str, float]:
        (then, before), self._last = self._last, self._read()
        took = self._last[0] - then
        return {name: (spent - before[name]) / took for name, spent in self._last[1].items()}


def _times(waits: Mapping[int, float], rate: float, cores: dict[str, float]) -> Times:
    ms = sorted(wait * 1000 for wait in waits.values())

    def at(share: float) -> float:
        return round(ms[min(len(ms) - 1, int(share * len(ms)))], 1)

    return Times(
        len(ms),
        at(0.5),
        at(0.99),
        round(ms[-1], 1),
        round(rate, 1),
        {name: round(part, 3) for name, part in cores.items()},
    )
