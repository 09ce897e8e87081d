"""A test marked ``alone`` has the machine for itself, also under xdist."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_TESTS = """
import json, time
import pytest

def record(name, book):
    start = time.time()
    time.sleep(0.15)
    with open(book, "a") as out:
        out.write(json.dumps([name, start, time.time()]) + "\\n")

@pytest.mark.parametrize("n", range(8))
def test_company(n):
    record("company", {book!r})

@pytest.mark.alone
@pytest.mark.parametrize("n", range(2))
def test_alone(n):
    record("alone", {book!r})
"""


def test_nothing_runs_beside_a_test_marked_alone(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    book = tmp_path / "book"
    (tmp_path / "test_these.py").write_text(_TESTS.replace("{book!r}", repr(str(book))))
    options = ["-n2", "-q", "-pno:cacheprovider", "-ptests.conftest", f"-c{root}/pyproject.toml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    spans = [tuple(json.loads(line)) for line in book.read_text().splitlines()]
    assert len(spans) == 10
    overlaps = [
        (one[0], other[0])
        for i, one in enumerate(spans)
        for other in spans[i + 1 :]
        if one[1] < other[2] and other[1] < one[2]
    ]
    assert ("company", "company") in overlaps  # two processes did work at once
    assert not [pair for pair in overlaps if "alone" in pair]
