"""What the demo publishes keeps to the contract and to the templates' schemas."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from mailgate.contract.read import read
from mailgate.contract.submission import Submission
from mailgate.render.catalogue import Catalogue, built_in_root

_DEMO = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "demo" / "publish.py"))
MESSAGES: list[dict[str, Any]] = [*_DEMO["MESSAGES"], _DEMO["SMALLEST"]]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load([built_in_root()])


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.get("id", "smallest"))
def test_each_message_of_the_demo_is_one_that_mailgate_takes(
    message: dict[str, Any], catalogue: Catalogue
) -> None:
    said = read(json.dumps(message).encode(), max_bytes=2**20)
    assert isinstance(said, Submission), said
    assert not said.refused
    if "template" in message:
        for recipient in message.get("recipients", [{}]):
            data = message["data"] | recipient.get("data", {})
            assert catalogue.check_data(message["template"], data) == []
