"""The published JSON Schema is current, and agrees with the reader where a schema can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from mailgate.contract import Submission, read
from mailgate.contract.rules import ALIASES
from mailgate.contract.schema import as_text, json_schema

PUBLISHED = Path(__file__).parents[3] / "docs" / "contract.schema.json"


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema_rs.validator_for(json_schema())


def test_the_published_schema_is_current() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == as_text()


def test_the_schema_is_sound() -> None:
    jsonschema_rs.meta.validate(json_schema())


@pytest.mark.parametrize(
    "document",
    [
        {"to": "ann@example.com", "template": "welcome", "data": {"a": 1}},
        {"to": {"email": "ann@example.com"}, "template_id": "welcome", "variables": {}},
        {"to": ["Ann <a@example.com>", {"email": "b@example.com", "name": "B"}], "cc": None}
        | {"subject": "s", "text_body": "t", "html_body": "<p>h</p>"},
        {"recipients": [{"email": "a@example.com", "context": {}}, "b@example.com"]}
        | {"template": "w", "scheduled_for": "2030-01-01T00:00:00Z"},
        {"to": "a@example.com", "template": "w", "throttle": {"window": "24h"}}
        | {"attachments": [{"filename": "a", "content": "AAAA"}], "headers": {"X-A": "1"}}
        | {"from": "a@example.com", "metadata": {"a": 1, "b": "c"}, "tags": ["t"]},
    ],
)
def test_what_is_accepted_is_valid_by_the_schema(document: Any, validator: Any) -> None:
    assert isinstance(read(json.dumps(document).encode(), max_bytes=10**6), Submission)
    validator.validate(document)


@pytest.mark.parametrize(
    "document",
    [
        {"template": "welcome"},
        {"to": 1, "template": "welcome"},
        {"to": [{"name": "x"}], "template": "welcome"},
        {"to": "a@example.com", "template": "welcome", "template_id": "welcome"},
        {"to": "a@example.com", "template": "welcome", "colour": 1},
        {"recipients": [{"email": "a@example.com", "data": {}, "context": {}}], "template": "w"},
        {"to": "a@example.com", "template": "W W"},
        {"to": "a@example.com", "template": "w", "version": 2},
    ],
)
def test_what_the_schema_refuses_is_refused(document: Any, validator: Any) -> None:
    assert not validator.is_valid(document)
    assert not isinstance(read(json.dumps(document).encode(), max_bytes=10**6), Submission)


def test_every_alias_is_described() -> None:
    assert json_schema()["properties"].keys() >= ALIASES.keys()
