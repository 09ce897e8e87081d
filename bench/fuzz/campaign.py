"""One target to the end of its time, over as many processes as it takes.

Owns what a campaign is known by afterwards, the reading of libFuzzer's lines, and the
judgement of finds. Never fuzzes: ``inside`` does, in a process of its own.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Where corpora grow and finds are kept.
GROUND = Path("var/fuzz")
#: No input is waited for any longer (seconds, by the clock on the wall).
LONGEST = 30
_LINE = re.compile(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+)(?: corp: (\d+))?")
_RSS = re.compile(r"rss: (\d+)Mb|peak_rss_mb: (\d+)")


@dataclass
class Ran:
    """One target's campaign. Edges and features are Atheris's; ``began`` with the corpus."""

    target: str
    seed: int
    seconds: float
    #: Of a processor, all of its processes together: other work may have had the rest.
    processor: float = 0.0
    inputs: int = 0
    edges_began: int = 0
    edges: int = 0
    features_began: int = 0
    features: int = 0
    corpus_began: int = 0
    corpus: int = 0
    #: Bytes: how long an input may get, and the longest that came of one.
    inputs_at_most: int = 0
    longest: int = 0
    #: MiB of the process, and its limit.
    memory: int = 0
    memory_bound: int = 0
    #: Processor seconds of the input that came nearest to its bound, instrumented, and its bound.
    slowest: float = 0.0
    slowest_bytes: int = 0
    slowest_bound: float = 0.0
    #: Inputs that were judged again without instruments because they were slow.
    judged: int = 0
    #: What became of the inputs.
    ended: dict[str, int] = field(default_factory=dict)
    finds: list[str] = field(default_factory=list)

    def line(self) -> str:
        said = (
            f"{self.target:10} {self.inputs:>9,} inputs  {self.edges:>6,} edges"
            f"  {self.features:>6,} features  {self.corpus:>5,} kept  {len(self.finds)} finds"
        )
        return "\n".join([said, *(f"           {self.target}/finds/{one}" for one in self.finds)])


def run(name: str, seconds: int, seed: int) -> Ran:
    target = importlib.import_module(f"bench.fuzz.{name}")
    ground = GROUND / name
    corpus, finds = ground / "corpus", ground / "finds"
    corpus.mkdir(parents=True, exist_ok=True)
    finds.mkdir(parents=True, exist_ok=True)
    large = getattr(target, "large", list)
    for one in [*target.seeds(), *large()]:
        (corpus / hashlib.sha1(one).hexdigest()).write_bytes(one)
    words = ground / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.WORDS))
    ran = Ran(name, seed, seconds, memory_bound=target.BOUND.memory)
    ran.inputs_at_most, ran.corpus_began = target.BOUND.input, len(list(corpus.iterdir()))
    before, begun, ended = set(finds.iterdir()), time.monotonic(), Counter[str]()
    processor = _children()
    while (left := int(begun + seconds - time.monotonic())) > 0:
        command = [
            *(sys.executable, "-m", "bench.fuzz", "--inside", name, str(corpus)),
            *(f"-max_total_time={left}", f"-seed={seed}", f"-timeout={LONGEST}"),
            *(f"-rss_limit_mb={target.BOUND.memory}", f"-max_len={target.BOUND.input}"),
            *(
                f"-artifact_prefix={finds}/",
                "-print_final_stats=1",
                f"-report_slow_units={LONGEST}",
            ),
            *([f"-dict={words}"] if target.WORDS else []),
        ]
        done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
        told = done.stderr.decode("utf-8", "replace")
        came = _read(ran, told)
        _add(ran, ground / "seen.json", ended)
        if done.returncode:
            (ground / f"log-{seed}").write_text(told)
            why = [line for line in told.splitlines() if "Escaped" in line or "ERROR" in line]
            print(f"{name:10} ended: {(why or told.splitlines()[-1:] or [''])[0]:.160}", flush=True)
            if not came:
                print(told[-3000:])
                ran.finds.append("it did not begin")
                break
        seed += 1
    ran.seconds = round(time.monotonic() - begun, 1)
    ran.processor = round(_children() - processor, 1)
    ran.corpus = len(list(corpus.iterdir()))
    ran.ended = dict(ended.most_common())
    for path in sorted(set(finds.iterdir()) - before):
        ran.judged += _may_be_slow(path)
        if _again(name, path):
            ran.finds.append(path.name)
    return ran


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _read(ran: Ran, told: str) -> bool:
    """Add what one process said of itself; false where it came to nothing."""
    lines = [m for m in map(_LINE.match, told.splitlines()) if m]
    if not lines:
        return False
    began = next((m for m in lines if "INITED" in m.string), lines[0])
    if not ran.inputs:
        ran.edges_began, ran.features_began = int(began[2]), int(began[3])
    ran.inputs += int(lines[-1][1])
    ran.edges = max(ran.edges, int(lines[-1][2]))
    ran.features = max(ran.features, int(lines[-1][3]))
    ran.memory = max([ran.memory, *(int(one or two) for one, two in _RSS.findall(told))])
    return True


def _add(ran: Ran, path: Path, ended: Counter[str]) -> None:
    """What ``inside`` wrote down of one process."""
    if not path.exists():
        return
    seen = json.loads(path.read_text())
    path.unlink()
    ran.longest = max(ran.longest, seen["longest"])
    ended.update(seen["ended"])
    slow, size, bound = seen["slowest"]
    if not ran.slowest_bound or slow / bound > ran.slowest / ran.slowest_bound:
        ran.slowest, ran.slowest_bytes, ran.slowest_bound = slow, size, bound


def _may_be_slow(path: Path) -> bool:
    return path.name.startswith(("timeout-", "slow-unit-"))


def _again(name: str, path: Path) -> bool:
    """Whether a find is one: what only took long may have waited for a busy machine."""
    if not _may_be_slow(path):
        return True
    command = [sys.executable, "-m", "bench.fuzz", "--again", name, str(path)]
    try:
        found = subprocess.run(command, timeout=4 * LONGEST, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        found = True
    if not found:
        path.unlink()
    return found


def judge(name: str, path: Path) -> int:
    """Run one input without instruments: 1 where it takes more time than it may."""
    from bench.fuzz import Came

    target: Any = importlib.import_module(f"bench.fuzz.{name}")
    for seed in target.seeds():
        target.run(seed)  # what is read once and kept is no input's
    begun = time.process_time()
    target.run(path.read_bytes())
    return int(time.process_time() - begun > target.BOUND.time(Came.last))


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode("latin-1", "backslashreplace"))
