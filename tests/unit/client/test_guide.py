"""Every example of the client's guide runs, and what it would publish is accepted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test.utils import override_settings

from mailgate.client import Client, captured

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
#: Those that talk with a gateway are run by ``tests/examples``.
EXAMPLES = re.findall(r"(?<!gateway -->\n)```python\n(.*?)```", GUIDE, re.DOTALL)

#: What examples take for granted.
GIVEN = (
    "from mailgate.client import Client, Message, publish, configure\n"
    "mail = Client('redis://nowhere.invalid', producer='shop')\n"
    "DATA = {'name': 'Ann'}\n"
)
DELIVERS = re.compile(r"\bpublish\(|apublish\(|send\(|send_mail\(|\.error\(|drain\(")


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.splitlines()[0])
def test_an_example_of_the_guide_runs(code: str, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mailgate.client.default._default", None)
    space: dict[str, Any] = {"__name__": "example"}
    exec(GIVEN, space)
    backend = "mailgate.client.django.EmailBackend"
    with captured() as outbox, override_settings(EMAIL_BACKEND=backend):
        exec(compile(code, "docs/clients.md", "exec", dont_inherit=True), space)
        for name, test in list(space.items()):
            if name.startswith("test_"):
                test(outbox)
    if DELIVERS.search(code):
        assert outbox


def test_the_table_of_options_is_complete() -> None:
    import inspect

    options = set(inspect.signature(Client).parameters) - {"url", "max_bytes"}
    table = GUIDE.partition("| Option of `Client`")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == options
