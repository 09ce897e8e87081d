"""``./dev faults``: the acceptance tests with the numbers that take minutes.

Owns the choice of what runs and the table at the end. The stages themselves are
``tests/acceptance``; options go on to pytest (``./dev faults -k kills``).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_WHAT = ("kills", "away", "pace", "shares", "uncertain", "endings", "operators")


def main(options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as directory:
        figures = Path(directory) / "figures"
        os.environ["ACCEPTANCE"] = "full"
        os.environ["ACCEPTANCE_FIGURES"] = str(figures)
        os.chdir(ROOT)
        files = [f"tests/acceptance/test_{name}.py" for name in _WHAT]
        code = pytest.main(["-q", *files, *options])
        lines = figures.read_text().splitlines() if figures.exists() else []
    print("\nWhat was seen")
    for line in lines:
        seen = json.loads(line)
        print(f"  {seen.pop('test')}")
        print("    " + ", ".join(f"{name} {value}" for name, value in seen.items()))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
