"""A broken template over real processes: its mail waits, the rest flows, mending is enough."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.conftest import Setting
from tests.acceptance.stage import until
from tests.acceptance.stage.load import Document


def write(root: Path, name: str, html: str) -> None:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {"name": {"type": "string"}},
    }
    (folder / "template.toml").write_text("version = 1\n")
    (folder / "context.schema.json").write_text(json.dumps(schema))
    (folder / "en.subject").write_text("Hello {{ name }}")
    (folder / "en.html").write_text(html)


def greetings(template: str, to: str, count: int) -> list[Document]:
    return [
        {"to": [f"{to}+{n}@example.com"], "template": template, "data": {"name": f"Number {n}"}}
        for n in range(count)
    ]


def test_nobody_restarts_anything_for_a_template(stage: Setting, tmp_path: Path) -> None:
    write(tmp_path, "greeting", "<p>Hello {{ nam }}</p>")
    write(tmp_path, "good", "<p>Hello {{ name }}</p>")
    scene = stage("valkey", "sqlite", settings={"templates.path": json.dumps([str(tmp_path)])})
    scene.intake()
    scene.worker(2)
    documents = greetings("greeting", "a", 20) + greetings("good", "b", 20)
    scene.publish(documents)
    scene.wait_finished(40)
    assert scene.journal.states() == {"held": 20, "sent": 20}
    [group] = scene.json("failures", "list")["items"]
    assert (group["error_class"], group["template"]) == ("template_broken", "greeting")

    write(tmp_path, "greeting", "<p>Hello {{ name }}</p>")
    until(lambda: scene.journal.states() == {"sent": 40}, 30, scene.logs)
    assert scene.account(documents).clean

    # A template that is new is known to the intake, too.
    write(tmp_path, "new", "<p>New: {{ name }}</p>")
    more = greetings("new", "c", 1)

    def accepted() -> bool:
        scene.publish(more)
        return scene.journal.accepted() > 40

    until(accepted, 30, scene.logs)
    until(lambda: scene.journal.states().get("sent", 0) > 40, 30, scene.logs)
