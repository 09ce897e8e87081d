"""Commands: what is asked about a message, told from a message by its verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from mailgate.contract import Command, Refusal, Submission, read
from mailgate.contract.commands import Cancel, Reschedule, as_text, json_schema

PUBLISHED = Path(__file__).parents[3] / "docs" / "command.schema.json"
SOON = "2030-01-01T10:00:00+01:00"


def said(document: Any) -> Submission | Command | Refusal:
    return read(json.dumps(document).encode(), max_bytes=10**5)


def command(document: Any) -> Command:
    got = said(document)
    assert isinstance(got, Command), got
    return got


GOOD: list[dict[str, Any]] = [
    {"cancel": {"id": "a"}},
    {"version": 1, "producer": "shop", "id": "c1", "cancel": {"idempotency_key": "k"}},
    {"cancel": {"id": "a", "recipient": "ann@example.org", "reason": "ordered twice"}},
    {"reschedule": {"id": "a", "send_at": SOON}},
    {"reschedule": {"id": "a", "send_at": SOON, "expires_at": "2031-01-01T00:00:00Z"}},
    {"ask": {"id": "a"}},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"cancel": {}}, "cancel.id: is required, or idempotency_key instead"),
    ({"cancel": None}, "cancel: must be an object"),
    ({"cancel": "a"}, "cancel: must be an object"),
    ({"cancel": {"id": ""}}, "cancel.id: must not be empty"),
    ({"cancel": {"id": 7}}, "cancel.id: must be a string"),
    ({"cancel": {"id": "a", "recipient": "bob"}}, "cancel.recipient: must be one email address"),
    (
        {"cancel": {"id": "a", "idempotency_key": "b"}},
        "cancel.idempotency_key: cannot go with id: name the message by one of them",
    ),
    (
        {"ask": {"id": "a"}, "cancel": {"id": "a"}},
        "cancel: cannot go with ask: publish one command at a time",
    ),
    ({"reschedule": {"id": "a"}}, "reschedule.send_at: is required"),
    (
        {"reschedule": {"id": "a", "send_at": "2030-01-01T10:00:00"}},
        "reschedule.send_at: needs an offset",
    ),
    (
        {"reschedule": {"id": "a", "send_at": SOON, "expires_at": SOON}},
        "reschedule.expires_at: must be later than send_at",
    ),
    ({"cancel": {"id": "a"}, "to": "ann@example.org"}, "to: is not a field of the contract"),
    ({"ask": {"id": "a"}, "version": 2}, "version: must be 1"),
]


@pytest.mark.parametrize("document", GOOD)
def test_a_command_is_read(document: dict[str, Any]) -> None:
    got = command(document)
    assert got.verb in document
    assert got.which.target in ("a", "k")
    jsonschema_rs.validator_for(json_schema()).validate(document)


@pytest.mark.parametrize(("document", "fault"), BAD)
def test_each_fault_is_named(document: dict[str, Any], fault: str) -> None:
    got = said(document)
    assert isinstance(got, Refusal)
    [first] = got.faults
    assert str(first).startswith(fault)


def test_all_faults_at_once_and_by_what_it_is_known() -> None:
    got = said({"producer": "shop", "id": "c1", "reschedule": {"send_at": 5}, "colour": 1})
    assert isinstance(got, Refusal)
    assert [f.field for f in got.faults] == ["reschedule.send_at", "colour"]
    assert (got.producer, got.id) == ("shop", "c1")


def test_what_cancel_and_reschedule_say() -> None:
    cancel = command(GOOD[2]).which
    assert isinstance(cancel, Cancel)
    assert (cancel.recipient, cancel.reason) == ("ann@example.org", "ordered twice")
    moved = command(GOOD[4]).which
    assert isinstance(moved, Reschedule)
    assert moved.send_at.isoformat() == "2030-01-01T09:00:00+00:00"


def test_the_hash_tells_a_repeat_from_another_command() -> None:
    spaced = read(b'{ "cancel":\n {"id": "a"} }', max_bytes=100)
    assert isinstance(spaced, Command)
    assert spaced.body_hash == command(GOOD[0]).body_hash != command(GOOD[5]).body_hash


def test_the_published_schema_is_current_and_sound() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == as_text()
    jsonschema_rs.meta.validate(json_schema())
    valid = jsonschema_rs.validator_for(json_schema()).is_valid
    assert not any(map(valid, ({}, {"cancel": {}}, GOOD[0] | GOOD[5], {"to": "a@example.org"})))
