"""Small template roots made for one test each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mailgate.model.address import Address
from mailgate.model.message import Letter
from mailgate.render import Catalogue, Renderer
from tests.unit.render.house import BUILT_IN

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "url": {"type": "string"},
        "items": {"type": "array"},
        "extra": {},
    },
}

MakeRoot = Callable[..., Path]


@pytest.fixture
def make_root(tmp_path: Path) -> MakeRoot:
    """Write a template ``t`` (or another) with the given files; give the root."""

    def make(
        html: str = "<p>{{ name }}</p>",
        *,
        name: str = "t",
        subject: str = "Hi {{ name }}",
        toml: str = "",
        schema: Any = None,
        files: Mapping[str, str] | None = None,
    ) -> Path:
        folder = tmp_path / name
        (folder / "fixtures").mkdir(parents=True, exist_ok=True)
        given = {
            "template.toml": toml,
            "context.schema.json": json.dumps(schema or SCHEMA),
            "en.subject": subject,
            "en.html": html,
            **(files or {}),
        }
        for path, content in given.items():
            target = folder / path if not path.startswith("_") else tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")
        return tmp_path

    return make


@pytest.fixture
def renderer_of(make_root: MakeRoot) -> Callable[..., Renderer]:
    def build(html: str, **given: Any) -> Renderer:
        return Renderer(Catalogue.load([make_root(html, **given)]))

    return build


@pytest.fixture(scope="session")
def built_in() -> Catalogue:
    return BUILT_IN


@pytest.fixture
def letter() -> Callable[..., Letter]:
    """A letter with everything that is needed; say only what matters."""

    def make(**given: Any) -> Letter:
        plain: dict[str, Any] = {
            "message_id": "<1.abc@example.com>",
            "date": 1_700_000_000_000,
            "boundary_seed": "seed",
            "sender": Address("news@example.com", "Example"),
            "to": (Address("ann@example.org", "Ann Bell"),),
        }
        if "template" not in given:
            plain |= {"subject": "Hello", "text": "Hello.\n"}
        return Letter(**(plain | given))

    return make


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Opening a socket fails the test, whoever tries and whatever they catch."""
    import socket

    tried: list[str] = []

    class Closed(socket.socket):
        def connect(self, address: Any) -> None:
            tried.append(str(address))
            raise OSError("no network in this test")

    monkeypatch.setattr(socket, "socket", Closed)
    yield
    assert tried == []
