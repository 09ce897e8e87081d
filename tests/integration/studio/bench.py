"""A running studio over templates that a test may change."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from mailgate.config.embedded import complete
from mailgate.config.shape import Config
from mailgate.studio.sending import way
from mailgate.studio.studio import serve

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "url"],
    "properties": {
        "name": {"type": "string", "maxLength": 60, "description": "How to address the reader"},
        "url": {"type": "string", "pattern": "^https://"},
        "note": {"type": "string"},
    },
}
HTML = """{% extends "_layouts/base.html" %}
{% import "_components/kit.html" as kit %}
{% block title %}Hello{% endblock %}
{% block content %}
{{ kit.heading("Hello, " ~ name) }}
{% call kit.paragraph() %}Your parcel is on its way.{% endcall %}
{% if note is defined %}{{ kit.prose(note) }}{% endif %}
{{ kit.button("Follow it", url) }}
{% endblock %}
{% block reason %}You ordered.{% endblock %}
"""


def write_template(root: Path, name: str = "parcel") -> Path:
    """A small template in two languages; its folder."""
    folder = root / name
    (folder / "fixtures").mkdir(parents=True)
    (folder / "template.toml").write_text('description = "A parcel is on its way"\n')
    (folder / "context.schema.json").write_text(json.dumps(SCHEMA))
    (folder / "en.html").write_text(HTML)
    (folder / "en.subject").write_text("A parcel for {{ name }}")
    (folder / "de.html").write_text(HTML.replace("Your parcel is on its way.", "Es kommt etwas."))
    (folder / "de.subject").write_text("Ein Paket für {{ name }}")
    (folder / "fixtures/typical.json").write_text(
        json.dumps({"name": "Ann", "url": "https://shop.example/1", "note": "Thank you!"})
    )
    (folder / "fixtures/minimal.json").write_text(
        json.dumps({"name": "Bo", "url": "https://shop.example/2"})
    )
    return folder


class RunningStudio:
    """The studio on an event loop in a thread of its own, on a free port."""

    def __init__(self, roots: Sequence[Path], said: Mapping[str, object]) -> None:
        self._roots = roots
        self._said = Config.model_validate(said)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(20)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()

        def ready(url: str) -> None:
            self.url = url
            self._ready.set()

        config = complete(self._said)
        await serve(
            config,
            self._roots,
            host="127.0.0.1",
            port=0,
            way=way(config, local=not self._said.relays),
            passwords={},
            on_ready=ready,
            stop=self._stop,
        )

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
        assert not self._thread.is_alive()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20)
