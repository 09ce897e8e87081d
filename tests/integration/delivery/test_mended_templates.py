"""Mail for a broken template waits, and goes on by itself once its author has mended it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from mailgate.journal.letters import letter_text
from mailgate.model.address import Address
from mailgate.model.state import Lane
from mailgate.operations import mending
from tests.integration.delivery.house import House, soon, until
from tests.integration.smtp.scripted import ScriptedRelay

GOOD = "<p>Hello {{ name }}</p>"
NORMAL = Lane.NORMAL


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "EVERY", 0.05)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "templates"
    root.mkdir()
    return root


def write(root: Path, html: str, name: str = "greeting") -> None:
    folder = root / name
    folder.mkdir(exist_ok=True)
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "rare": {"type": "string"}},
    }
    (folder / "template.toml").write_text("version = 1\n")
    (folder / "context.schema.json").write_text(json.dumps(schema))
    (folder / "en.subject").write_text("Hello")
    (folder / "en.html").write_text(html)


def body(template: str, **data: str) -> str:
    return letter_text(
        sender=Address("shop@example.com", "Shop"),
        mail_from="shop@example.com",
        domain="example.com",
        template=template,
        data={"name": "Ann", **data},
    )


async def add(house: House, key: str, template: str = "greeting", **data: str) -> int:
    said = body(template, **data)
    [id_] = await house.add(f"{key}@example.org", key=key, template=template, body=said)
    return id_


async def test_a_mended_template_lets_its_recipients_go_and_the_others_never_waited(
    house: House, root: Path
) -> None:
    write(root, "<p>Hello {{ nme }}</p>")
    write(root, GOOD, "other")
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay}, templates={"path": [str(root)]})
        waiting = [await add(house, f"a{n}") for n in range(3)]
        fine = await add(house, "b", "other")
        counts = await gateway.deliver(NORMAL, soon())
        assert counts == {"hold": 3, "sent": 1}
        assert house.state(fine) == "sent"
        house.rings.clear()
        write(root, GOOD)
        await until(lambda: NORMAL in house.rings)
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 3}
    assert [house.kinds(id_)[-2:] for id_ in waiting] == [["queued", "sent"]] * 3
    acts = house.journal.all("SELECT who, verb, reason, count FROM actions")
    assert [tuple(act) for act in acts] == [
        ("mailgate", "release", "the template greeting serves again", 3)
    ]


async def test_a_worker_that_starts_finds_what_was_mended_meanwhile(
    small_house: House, root: Path
) -> None:
    async with ScriptedRelay() as relay:
        gateway = await small_house.open({"main": relay}, templates={"path": [str(root)]})
        id_ = await add(small_house, "a")
        await gateway.deliver(NORMAL, soon())
        assert small_house.journal.row(id_).error_class == "template_missing"
        await gateway.stop(1)
        small_house.gone(gateway)
        write(root, GOOD)
        small_house.rings.clear()
        gateway = await small_house.open({"main": relay}, templates={"path": [str(root)]})
        await until(lambda: NORMAL in small_house.rings)
        assert await gateway.deliver(NORMAL, soon()) == {"sent": 1}


async def test_a_template_that_breaks_while_mail_flows_and_what_only_data_breaks(
    small_house: House, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is let go again and again for a template that serves all but them."""
    monkeypatch.setattr(mending, "_LATE", 300)
    write(root, '<a {% if rare is defined %}href{% else %}title{% endif %}="{{ name }}">x</a>')
    async with ScriptedRelay() as relay:
        gateway = await small_house.open({"main": relay}, templates={"path": [str(root)]})
        wrong = await add(small_house, "wrong", rare="yes")
        assert await gateway.deliver(NORMAL, soon()) == {"hold": 1}
        await asyncio.sleep(0.5)
        for _ in range(10):
            await gateway.deliver(NORMAL, soon(0.15))
        assert small_house.state(wrong) == "held"
        assert small_house.kinds(wrong).count("queued") <= 2
        write(root, "{% if %}")
        await until(lambda: gateway._shelf.catalogue.check_data("greeting", {"x": 1}) == [])
        id_ = await add(small_house, "a")
        await gateway.deliver(NORMAL, soon())
        assert small_house.state(id_) == "held"
        write(root, GOOD)
        await until(lambda: not gateway._shelf.catalogue.check_data("greeting", {"name": "A"}))
        await until(lambda: small_house.state(wrong) == "queued", 3)
        await gateway.deliver(NORMAL, soon())
        assert small_house.state(id_) == small_house.state(wrong) == "sent"
