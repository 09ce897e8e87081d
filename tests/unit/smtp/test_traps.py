"""The table of aiosmtplib's traps in the architecture names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
_ROW = re.compile(r"^\| (\d+) \|.*\| ([^|]+) \|$", re.MULTILINE)


def test_every_trap_has_tests_and_they_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = _ROW.findall(page.partition("## aiosmtplib's traps")[2])
    assert [int(number) for number, _ in rows] == list(range(1, 13))
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)", source))
    for number, names in rows:
        named = re.findall(r"`(test_\w+)`", names)
        assert named, f"trap {number} has no test"
        assert set(named) <= there, f"trap {number}: {set(named) - there}"
