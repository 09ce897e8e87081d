"""The fault harness at its smallest size, and what it says of a mailgate with a bug in it.

The same faults at full size, and the rest of them: ``./dev faults``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from bench.faults import rows  # noqa: F401 - the rows enter themselves
from bench.faults.fault import FAULTS, attempt
from bench.faults.ground import Ground
from bench.faults.planted import BUGS

SEED = 20261125
#: Of brokers, journal, processes and operators; one that waits for a lease, none for clocks.
QUICK = (
    "points-valkey-sqlite",
    "rabbitmq-kills",
    "valkey-wiped",
    "postgresql-stopped",
    "pause-take-claimed-postgresql",
    "poison",
    "rolling-restarts",
    "resend-interrupted",
)


@pytest.fixture
def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    """The servers of the test run, and journals of its own."""
    names = ("valkey", "rabbitmq", "postgres")
    servers = {n: functools.partial(request.getfixturevalue, f"{n}_server") for n in names}
    made = Ground(tmp_path_factory.mktemp("ground"), **servers)
    yield made
    made.close()


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_loses_nothing_and_repeats_nothing_in_silence(
    name: str, ground: Ground, figure: Any
) -> None:
    seen = attempt(ground, FAULTS[name], SEED, size=0.01)
    figure(**seen.figures)
    assert not seen.wrong, seen.wrong
    assert not seen.skipped


@pytest.mark.parametrize("bug", ["acknowledge-before-the-commit", "no-mark-before-the-dot"])
def test_a_planted_bug_is_noticed(bug: str, ground: Ground) -> None:
    assert bug in BUGS
    seen = attempt(ground, FAULTS[f"planted-{bug}"], SEED, size=0.01)
    assert not seen.wrong, seen


def test_every_bug_has_a_fault_that_brings_it_out() -> None:
    assert {f"planted-{bug}" for bug in BUGS} <= FAULTS.keys()
