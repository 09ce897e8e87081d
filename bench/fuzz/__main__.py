"""``./dev fuzz``: throw input at one target after another, led by what code it reaches.

Owns the command line. Each target runs in a process of its own under a limit of memory, by
Atheris (libFuzzer). What breaks a promise is kept in ``var/fuzz``; put it beside its kind in
``tests/unit/hostile/found`` and it is a test. What was done is told in ``bench/results``.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from bench.fuzz import campaign, report
from bench.keeping import commit

TARGETS = ("intake", "relay", "templates")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be given again")
    parser.add_argument("--seconds", type=int, default=600, help="for each target (600)")
    parser.add_argument("--seed", type=int, help="the dice; a new one by default")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--again", nargs=2, help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args(arguments)
    if given.inside:
        from bench.fuzz import inside

        return inside.fuzz(given.inside, rest)
    if given.again:
        return campaign.judge(given.again[0], Path(given.again[1]))
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    seed = random.randrange(1, 2**31) if given.seed is None else given.seed
    print(f"seed {seed}, {given.seconds} s for each target", flush=True)
    of = commit()
    lot = []
    for name in given.target or TARGETS:
        lot.append(campaign.run(name, given.seconds, seed))
        print(lot[-1].line(), flush=True)
    print(report.write(lot, of), flush=True)
    return int(any(ran.finds for ran in lot))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
