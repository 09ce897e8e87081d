"""Digests from the command line: what gathers, sending one now, the story of an item."""

from __future__ import annotations

from mailgate.config.digests import Digest
from mailgate.journal.surgery import Act
from mailgate.model.ids import spell
from mailgate.operations.retention import erase
from tests.contract.journal.rig import Rig
from tests.contract.journal.test_digests import desk_of, item
from tests.integration.cli.conftest import Shell

LONG = Digest(after="1d")


def test_what_gathers_is_listed_and_goes_when_it_is_released(journal: Rig, shell: Shell) -> None:
    desk = desk_of(journal)
    item(journal, 1, digest=LONG, key="thread-1")
    item(journal, 2, digest=LONG, key="thread-1")
    item(journal, 3, digest=LONG, key="thread-2")
    found = shell("digests", "list", "--json").document["items"]
    assert [(i["name"], i["key"], i["items"]) for i in found] == [
        ("news", "thread-1", 2),
        ("news", "thread-2", 1),
    ]
    assert {i["recipient"] for i in found} == {"a***@example.org"}
    assert "digests\n2 gathering, the next goes at" in shell("status").out
    assert desk.close() == 0
    said = shell("digests", "release", "news/thread-1", "--reason", "closed", "--json")
    assert said.document == {"released": 1}
    assert desk.close() == 1
    [left] = shell("digests", "list", "--json").document["items"]
    assert left["key"] == "thread-2"
    assert shell("digests", "release", left["id"]).out == "released: 1 digests\n"
    assert desk.close() == 1
    assert shell("digests", "release", "news").code == 1
    verbs = journal.all("SELECT verb, reason FROM actions ORDER BY id")
    assert [tuple(v) for v in verbs] == [("release_digest", "closed"), ("release_digest", "")]


def test_an_item_names_its_digest_and_a_digest_its_items(journal: Rig, shell: Shell) -> None:
    desk = desk_of(journal)
    rows = [item(journal, n, digest=LONG, name=f"c-{n}") for n in range(25)]
    message = spell(journal.row(rows[0]).message_id)
    story = shell("messages", "show", message).out
    assert "waits for the digest news, which goes at" in story
    shell("digests", "release", "news")
    desk.close()
    [mail] = desk.mails()
    number = spell(mail["id"])
    assert f"went in the digest {number}" in shell("messages", "show", message).out
    whole = shell("messages", "show", number, "--json").document
    assert [i["id"] for i in whole["items"]] == [f"c-{n}" for n in range(25)]
    assert whole["items"][0]["message"] == message
    told = shell("messages", "show", number).out
    assert "a digest of 25 items" in told
    assert "and 5 more" in told


def test_who_is_erased_leaves_no_digest_behind(journal: Rig) -> None:
    desk = desk_of(journal)
    gone = item(journal, 1, digest=LONG)
    item(journal, 2, digest=LONG, to="bo@example.org")
    done = erase(journal.database, "Ann@example.org", Act("me", "erase", "asked"))
    assert done.cancelled == 1
    assert "ann@" not in journal.row(gone).email
    assert desk.close() == 1
    assert desk.mails() == []
    assert journal.count("digests") == 1
