"""Guarantees and security: each promise names what holds it, and that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.faults import rows  # noqa: F401 - the rows enter themselves
from bench.faults.fault import FAULTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guarantees.md").read_text()
SECURITY = (ROOT / "docs/security.md").read_text()


def promises(page: str = PAGE) -> list[list[str]]:
    """The rows of every table whose last column says what holds them."""
    found = []
    holding = False
    for line in page.splitlines():
        if not line.startswith("|"):
            holding = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[-1] == "Held by":
            holding = True
        elif holding and set(line) - set("|- "):
            found.append(cells)
    return found


def all_tests() -> set[str]:
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize(
    ("page", "least"), [(PAGE, 25), (SECURITY, 20)], ids=["guarantees", "security"]
)
def test_every_promise_names_what_holds_it_and_that_exists(page: str, least: int) -> None:
    known = all_tests() | FAULTS.keys()
    assert len(promises(page)) > least
    for promise in promises(page):
        names = re.findall(r"`([^`]+)`", promise[-1])
        assert names, f"nothing holds: {promise[0]}"
        assert set(names) <= known, set(names) - known


def test_every_name_on_the_page_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE + SECURITY))
    assert named - all_tests() == set()


def test_every_fault_holds_a_promise() -> None:
    named = {name for promise in promises() for name in re.findall(r"`([^`]+)`", promise[-1])}
    of_all = {"soak", "postgresql-hangs-up", "valkey-kills", "partition-relay", "disk-full-broker"}
    # A planted bug holds no promise: it shows that the harness would notice.
    missing = {n for n in FAULTS if not n.startswith(("pause-", "planted-"))} - named - of_all
    assert missing == set(), "docs/guarantees.md does not say what these hold"
