"""Only what a save touches is read again."""

from __future__ import annotations

import random
from email import message_from_bytes
from pathlib import Path

import pytest

from mailgate.model.ids import Ids
from mailgate.render.dkim import Identity, Key, Signer
from mailgate.studio.workshop import SENDER, Order, Workshop
from tests.integration.studio.bench import write_template

DATA = '{"name": "Ann", "url": "https://shop.example/1"}'


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    write_template(tmp_path, "one")
    write_template(tmp_path, "two")
    return Workshop([tmp_path], "en", Ids(random.random), "")


def names(workshop: Workshop) -> list[str]:
    return [item["name"] for item in workshop.catalogue()["items"]]


def save(workshop: Workshop, *paths: Path) -> None:
    for step in workshop.steps([str(path) for path in paths]):
        workshop.reload(step)


def test_a_file_of_a_template_is_of_that_template_alone(workshop: Workshop, tmp_path: Path):
    paths = [str(tmp_path / "one/en.html"), str(tmp_path / "one/fixtures/typical.json")]
    assert workshop.steps(paths) == [frozenset({"one"})]


def test_a_shared_file_is_of_all_and_the_one_looked_at_goes_first(
    workshop: Workshop, tmp_path: Path
):
    shared = [str(tmp_path / "_theme/default.json"), str(tmp_path / "one/en.html")]
    assert workshop.steps(shared) == [None]
    workshop.make(Order("two", DATA), SENDER)
    assert workshop.steps(shared) == [frozenset({"two"}), None]


def test_templates_come_change_and_go(workshop: Workshop, tmp_path: Path):
    before = workshop.version
    three = write_template(tmp_path, "three")
    (tmp_path / "one/en.subject").write_text("Other")
    save(workshop, three / "en.html", tmp_path / "one/en.subject")
    assert workshop.version != before
    assert names(workshop) == ["one", "three", "two"]
    made = workshop.make(Order("one", DATA), SENDER)
    assert made.content is not None
    assert b"\r\nSubject: Other\r\n" in made.content
    (tmp_path / "two").rename(tmp_path / "four")
    save(workshop, tmp_path / "two/en.html", tmp_path / "four/en.html")
    assert names(workshop) == ["four", "one", "three"]


def test_a_template_that_breaks_and_is_mended(workshop: Workshop, tmp_path: Path):
    file = tmp_path / "one/en.html"
    good = file.read_text()
    file.write_text("{% if %}")
    save(workshop, file)
    found = workshop.template("one")
    assert found is not None
    assert found["broken"] is True
    assert workshop.findings("one")[0].line == 1
    assert workshop.make(Order("one", DATA), SENDER).problem
    file.write_text(good)
    save(workshop, file)
    assert workshop.make(Order("one", DATA), SENDER).content


def test_each_mail_has_a_message_id_of_its_own(workshop: Workshop):
    made = [workshop.make(Order("one", DATA), SENDER).content or b"" for _ in range(3)]
    assert len({message_from_bytes(content)["Message-ID"] for content in made}) == 3


def test_a_rendering_is_kept_for_a_while(workshop: Workshop):
    first = workshop.keep(b"first")
    assert workshop.kept(first) == b"first"
    for _ in range(64):
        workshop.keep(b"more")
    assert workshop.kept(first) is None


def test_test_mails_are_signed_like_all_others(tmp_path: Path):
    write_template(tmp_path, "one")
    key = Key("mg1", "rsa-sha256", lambda _: b"signature")
    signer = Signer([Identity(SENDER.domain, (key,))])
    workshop = Workshop([tmp_path], "en", Ids(random.random), "", signer)
    for _ in range(2):
        made = workshop.make(Order("one", DATA), SENDER)
        assert made.content is not None
        assert made.content.startswith(b"DKIM-Signature: v=1; a=rsa-sha256;")
        save(workshop, tmp_path / "one/en.html")
