"""The events' schema is current and sound, and the page about them shows what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest

from mailgate.config.events import Kind
from mailgate.contract.event import Event, EventKind, as_text, json_schema
from mailgate.model.state import FINAL, State

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
[SHOWN] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
PROGRAMS = re.findall(r"<!-- (examples/events/\S+) -->\n```\w+\n(.*?)```\n", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema_rs.validator_for(json_schema())


def test_the_published_schema_is_current() -> None:
    published = ROOT / "docs" / "event.schema.json"
    assert published.read_text(encoding="utf-8") == as_text()


def test_the_schema_is_sound() -> None:
    jsonschema_rs.meta.validate(json_schema())


def test_the_event_that_the_page_shows_is_one(validator: Any) -> None:
    document = json.loads(SHOWN)
    validator.validate(document)
    assert Event.model_validate(document).event == "bounced"


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "sending"},
        {"version": 2},
        {"recipient": None},
        {"seq": -1},
        {"attempt": {"relay": "main"}},
    ],
)
def test_the_schema_refuses_what_is_none(validator: Any, wrong: dict[str, Any]) -> None:
    assert not validator.is_valid(json.loads(SHOWN) | wrong)


def test_readers_pass_over_what_they_do_not_know(validator: Any) -> None:
    assert validator.is_valid(json.loads(SHOWN) | {"news": 1})


def test_every_event_is_told_and_which_are_final() -> None:
    table = PAGE.partition("## What is told")[2].partition("## What you can rely on")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \|( yes)? \|$", table, re.MULTILINE))
    assert set(rows) == {kind.value for kind in EventKind}
    assert {State(name) for name, final in rows.items() if final} == FINAL


def test_the_configuration_knows_every_event() -> None:
    assert set(get_args(Kind)) == {kind.value for kind in EventKind}


def test_every_example_is_shown() -> None:
    files = {f"examples/events/{p.name}" for p in (ROOT / "examples/events").iterdir()}
    assert files == {name for name, _ in PROGRAMS}


@pytest.mark.parametrize(("name", "text"), PROGRAMS)
def test_the_page_shows_the_program_as_it_is(name: str, text: str) -> None:
    assert text == (ROOT / name).read_text(encoding="utf-8")
