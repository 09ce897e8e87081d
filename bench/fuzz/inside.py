"""The process that fuzzes: one target under Atheris, and what it costs to each input.

Owns what is written down meanwhile (``seen.json``): libFuzzer ends its process without a
word to anybody in it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from bench.fuzz import Bound, Came, hold
from bench.fuzz.campaign import GROUND

#: Instruments make code slower by about this; what takes longer is judged without them.
_SLOWER = 3
#: So many of those a process: each is run again at the end.
_JUDGED = 20
_MIB = 2**20


class Measured:
    """A target, with a clock and a scale."""

    def __init__(self, name: str, run: Callable[[bytes], str], bound: Bound) -> None:
        self._run, self._bound, self._ground = run, bound, GROUND / name
        self._ended: Counter[str] = Counter()
        #: Seconds, bytes and bound of the one that came nearest to it.
        self._slowest = (0.0, 0, bound.seconds)
        self._slow = 0
        self._told = 0.0

    def one(self, data: bytes) -> None:
        before, begun = _peak(), time.process_time()
        word = self._run(data)
        took, size = time.process_time() - begun, Came.last
        self._ended[word] += 1
        if self._bound.grows:
            each, besides = self._bound.grows
            grown = _peak() - before
            hold(grown <= each * size + besides * _MIB, f"{size} bytes take {grown / _MIB:.0f} MiB")
        bound = self._bound.time(size)
        if took / bound > self._slowest[0] / self._slowest[2]:
            self._slowest = (took, size, bound)
        if took > _SLOWER * bound and self._slow < _JUDGED:
            self._slow += 1
            name = f"slow-unit-{hashlib.sha1(data).hexdigest()}"
            (self._ground / "finds" / name).write_bytes(data)
        if time.monotonic() - self._told > 1:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        seen = {"longest": Came.longest, "slowest": self._slowest, "ended": self._ended}
        made = self._ground / "seen.new"
        made.write_text(json.dumps(seen))
        made.replace(self._ground / "seen.json")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(name: str, arguments: list[str]) -> int:
    import atheris

    with atheris.instrument_imports(include=["mailgate", "jinja2", "email", "json", "aiosmtplib"]):
        target: Any = importlib.import_module(f"bench.fuzz.{name}")
    ways: dict[str, Any] = {}
    if hasattr(target, "changed"):

        def change(data: bytes, most: int, seed: int) -> bytes:
            made: bytes = target.changed(data, most, Random(seed), atheris.Mutate)
            return made[:most]

        def cross(one: bytes, other: bytes, most: int, seed: int) -> bytes:
            made: bytes = target.crossed(one, other, most, Random(seed))
            return made[:most]

        ways = {"custom_mutator": change, "custom_crossover": cross}
    for seed in target.seeds():
        target.run(seed)  # what is read once and kept is no input's
    measured = Measured(name, getattr(target, "fuzzed", target.run), target.BOUND)
    atheris.Setup([sys.argv[0], *arguments], measured.one, **ways)
    atheris.Fuzz()
    return 0
