"""The table of transitions: every pair, and no second table anywhere."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from mailgate.journal.tables import WAITING_SQL
from mailgate.model.state import FINAL, RESENDABLE, TRANSITIONS, WAITING, State, allowed
from tests.unit.model.diagram import page

ROOT = Path(__file__).parents[3]

#: Written by hand from the plan, to be compared with the code's table.
PLAN = """
queued -> sending queued gathering expired suppressed throttled digested cancelled held uncertain
deferred -> sending queued gathering expired suppressed throttled digested cancelled held uncertain
gathering -> digested expired suppressed cancelled uncertain
sending -> queued sent deferred bounced failed uncertain expired held captured
uncertain -> queued sent
held -> queued cancelled expired uncertain
bounced -> queued
failed -> queued
expired -> queued
suppressed -> queued
sent ->
throttled ->
digested ->
cancelled ->
captured -> queued
"""
LEGAL = {
    (State(line.split()[0]), State(target))
    for line in PLAN.strip().splitlines()
    for target in line.split()[2:]
}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(State, State)), ids=str)
def test_a_move_is_allowed_when_the_plan_has_it(source: State, target: State) -> None:
    assert allowed(source, target) == ((source, target) in LEGAL)


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_only_a_claim_leads_to_sending_and_it_ends_every_wait() -> None:
    assert {s for s in State if allowed(s, State.SENDING)} == WAITING
    # What waits is what the index of due rows holds.
    assert {State(s) for s in re.findall(r"'(\w+)'", WAITING_SQL)} == WAITING


def test_a_sent_recipient_stays_sent() -> None:
    assert TRANSITIONS[State.SENT] == frozenset()


def test_only_an_operator_leads_out_of_a_final_state() -> None:
    for state in FINAL:
        assert TRANSITIONS[state] == (
            frozenset({State.QUEUED}) if state in RESENDABLE else frozenset()
        )


def test_what_can_be_sent_again_can_be_queued() -> None:
    assert all(allowed(state, State.QUEUED) for state in RESENDABLE)


def test_every_state_can_be_reached_and_none_is_a_trap() -> None:
    reached = {State.QUEUED, State.GATHERING}
    while more := {t for s in reached for t in TRANSITIONS[s]} - reached:
        reached |= more
    assert reached == set(State)
    resting = FINAL | {State.HELD, State.UNCERTAIN} | WAITING
    assert set(State) - resting == {State.SENDING, State.GATHERING}


def test_the_page_about_states_is_current() -> None:
    assert (ROOT / "docs" / "states.md").read_text() == page()


def test_the_table_is_written_once() -> None:
    """A second table would one day say something else."""
    for path in (ROOT / "mailgate").rglob("*.py"):
        if path.name != "state.py":
            assert "TRANSITIONS" not in path.read_text(), path
