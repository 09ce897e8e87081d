"""``./dev faults``: every fault in turn, a line each, and a report at the end.

Owns the command line. The faults themselves are in ``rows``.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from bench.faults import report, rows
from bench.faults.fault import FAULTS, attempt
from bench.faults.ground import own_ground
from bench.keeping import RESULTS, commit


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev faults", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="may be given again")
    parser.add_argument("--seed", type=int, help="the dice; a new one by default")
    parser.add_argument("--size", type=float, default=1.0, help="share of the full size (1)")
    parser.add_argument("--soak", type=float, default=3600, help="seconds of the soak (3600)")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--report", type=Path, default=RESULTS, help="its directory")
    parser.add_argument(
        "--gather", type=Path, nargs="+", metavar="JSON", help="make one report of several"
    )
    given = parser.parse_args(arguments)
    if given.gather:
        lot = report.gathered(given.gather, list(FAULTS))
        print(f"report: {report.write(lot, given.report)}")
        return int(any(seen.wrong for seen in lot))
    if given.list:
        for one in FAULTS.values():
            print(f"{one.name:28} {one.what}")
        return 0
    chosen = [n for n in FAULTS if not given.only or any(n.startswith(o) for o in given.only)]
    if not chosen:
        parser.error(f"no fault is called {' or '.join(given.only)}: --list")
    rows.soak.SECONDS = given.soak
    seed = random.randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}, size {given.size:g}", flush=True)
    of = commit()
    lot = []
    with own_ground() as ground:
        for name in chosen:
            lot.append(attempt(ground, FAULTS[name], seed, given.size, of))
            print(lot[-1].line, flush=True)
    print(f"report: {report.write(lot, given.report)}")
    return int(any(seen.wrong for seen in lot))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
