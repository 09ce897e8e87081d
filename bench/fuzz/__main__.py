"""``./dev fuzz``: throw input at one target after another, led by what code it reaches.

Owns the command line and the processes: each target runs in one of its own under a limit
of memory, by Atheris (libFuzzer). What breaks a promise is kept in ``var/fuzz``; put it
beside its kind in ``tests/unit/hostile`` and it is a test.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: Where corpora grow and finds are kept.
GROUND = Path("var/fuzz")
TARGETS = ("intake", "relay", "templates")
#: One input's longest time (seconds), and the process's memory (MiB).
LONGEST, MEMORY = 15, 1024
#: Processor time that is worth a look (seconds).
SLOW = 0.3
_LINE = re.compile(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+)(?: corp: (\d+))?")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be given again")
    parser.add_argument("--seconds", type=int, default=600, help="for each target (600)")
    parser.add_argument("--seed", type=int, help="the dice; a new one by default")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args(arguments)
    if given.inside:
        return _inside(given.inside, rest)
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    seed = random.randrange(1, 2**31) if given.seed is None else given.seed
    print(f"seed {seed}, {given.seconds} s for each target", flush=True)
    found = 0
    for name in given.target or TARGETS:
        found += _campaign(name, given.seconds, seed)
    return int(found > 0)


def _campaign(name: str, seconds: int, seed: int) -> int:
    """Run one target to the end of its time; gives how many inputs broke it."""
    target = importlib.import_module(f"bench.fuzz.{name}")
    corpus, finds = GROUND / name / "corpus", GROUND / name / "finds"
    corpus.mkdir(parents=True, exist_ok=True)
    finds.mkdir(parents=True, exist_ok=True)
    for one in target.seeds():
        (corpus / hashlib.sha1(one).hexdigest()).write_bytes(one)
    words = GROUND / name / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.WORDS))
    end, inputs, edges, features, kept = time.monotonic() + seconds, 0, 0, 0, 0
    before = set(finds.iterdir())
    while (left := int(end - time.monotonic())) > 0:
        command = [
            *(sys.executable, "-m", "bench.fuzz", "--inside", name, str(corpus)),
            *(f"-max_total_time={left}", f"-seed={seed}", f"-timeout={LONGEST}"),
            *(f"-rss_limit_mb={MEMORY}", "-max_len=4096", f"-artifact_prefix={finds}/"),
            *([f"-dict={words}"] if target.WORDS else []),
        ]
        run = subprocess.run(command, stderr=subprocess.PIPE, check=False)
        told = run.stderr.decode("utf-8", "replace")
        last = [m for m in map(_LINE.match, told.splitlines()) if m]
        if last:
            inputs += int(last[-1][1])
            edges, features = max(edges, int(last[-1][2])), max(features, int(last[-1][3]))
            kept = int(last[-1][4] or 0)
        if run.returncode:
            (GROUND / name / f"log-{seed}").write_text(told)
            why = [line for line in told.splitlines() if "Escaped" in line or "ERROR" in line]
            print(f"{name:10} found: {(why or told.splitlines()[-1:] or [''])[0]:.160}", flush=True)
            if not last:
                print(told[-3000:])
                return 1
        seed += 1
    new = sorted(path for path in set(finds.iterdir()) - before if _again(target, path))
    print(
        f"{name:10} {inputs:>9,} inputs  {edges:>6,} edges  {features:>6,} features "
        f" {kept:>5,} kept  {len(new)} finds",
        flush=True,
    )
    for path in new:
        print(f"           {path}", flush=True)
    return len(new)


def _again(target: Any, path: Path) -> bool:
    """Whether a find is one: what only took long may have waited for a busy machine."""
    if not path.name.startswith(("timeout-", "slow-unit-")):
        return True
    begun = time.process_time()
    target.run(path.read_bytes())
    if time.process_time() - begun > SLOW:
        return True
    path.unlink()
    return False


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode("latin-1", "backslashreplace"))


def _inside(name: str, arguments: list[str]) -> int:
    import atheris

    with atheris.instrument_imports(include=["mailgate", "jinja2", "email", "json", "aiosmtplib"]):
        target = importlib.import_module(f"bench.fuzz.{name}")
    run = target.run

    def one(data: bytes) -> None:
        run(data)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
