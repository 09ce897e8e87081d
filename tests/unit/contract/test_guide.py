"""The producers' guide shows the example files as they are, and tells every field."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mailgate.contract import Command, Refusal, Submission, read
from mailgate.contract.rules import ALIASES
from mailgate.contract.schema import json_schema

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "publish"
GUIDE = (ROOT / "docs" / "producers.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"<!-- (examples/publish/\S+) -->\n```\w+\n(.*?)```\n", GUIDE, re.DOTALL)


def test_every_example_is_shown() -> None:
    files = {f"examples/publish/{p.name}" for p in EXAMPLES.iterdir() if p.is_file()}
    assert files == {name for name, _ in SHOWN}


@pytest.mark.parametrize(("name", "text"), SHOWN)
def test_the_guide_shows_the_file_as_it_is(name: str, text: str) -> None:
    assert text == (ROOT / name).read_text(encoding="utf-8")


def test_every_field_and_every_other_spelling_is_told() -> None:
    fields = [name for name in json_schema()["properties"] if name not in ALIASES]
    table = GUIDE.partition("## All fields")[2].partition("## What is refused")[0]
    missing = [name for name in [*fields, *ALIASES] if f"`{name}`" not in table]
    assert missing == []


def test_the_messages_of_the_guide_are_accepted() -> None:
    found = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    said = [read(text.encode(), max_bytes=10**6) for text in found]
    assert [type(one) for one in said] == [Submission] * 2 + [Command] * 4 + [Submission] * 2


def test_the_faults_of_the_guide_are_what_is_said() -> None:
    document = {
        "to": ["ann@example.com", {"email": "bob"}],
        "template": "welcome",
        "sbject": "Hello",
        "send_at": "2030-01-31T09:00:00",
    }
    got = read(json.dumps(document).encode(), max_bytes=10**6)
    assert isinstance(got, Refusal)
    for fault in got.faults:
        assert str(fault) in GUIDE
