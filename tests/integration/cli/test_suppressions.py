"""``mailgate suppressions`` over a real journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailgate.model.state import State
from tests.contract.journal.rig import Rig, arrival, attempt, settlement
from tests.integration.cli.conftest import Shell


def addresses(shell: Shell, *options: str) -> list[str]:
    said = shell("suppressions", "list", "--json", "--show-personal-data", *options)
    assert said.code == 0
    return [item["address"] for item in said.document["items"]]


def test_an_address_is_added_listed_masked_and_removed_with_an_audit(
    shell: Shell, journal: Rig
) -> None:
    said = shell("suppressions", "add", "Ann@example.org", "@example.com", "--reason", "asked us")
    assert (said.code, said.out) == (0, "suppressed: 2\n")
    listed = shell("suppressions", "list")
    assert "a***@example.org" in listed.out
    assert "ann@" not in listed.out
    [item, domain] = shell("suppressions", "list", "--json").document["items"]
    assert item["address"] == "a***@example.org"
    assert (item["reason"], item["source"], item["expires_at"]) == ("asked us", "manual", None)
    assert domain["address"] == "example.com"
    said = shell("suppressions", "remove", "ann@example.org", "--reason", "asked again")
    assert (said.code, said.out) == (0, "removed: 1\n")
    assert addresses(shell) == ["example.com"]
    acts = journal.all("SELECT verb, reason, count, who FROM actions ORDER BY id")
    assert [(a.verb, a.reason, a.count) for a in acts] == [
        ("suppress", "asked us", 2),
        ("unsuppress", "asked again", 1),
    ]
    assert "@" in acts[0].who


def test_waiting_mail_is_stopped_by_a_new_entry(shell: Shell, journal: Rig) -> None:
    journal.store(arrival("m", "ann@example.org"))
    assert shell("suppressions", "add", "ann@example.org").code == 0
    assert journal.claim(journal.lease()) == []
    [item] = shell("messages", "list", "--json").document["items"]
    assert (item["state"], item["error_class"]) == ("suppressed", "suppressed")
    shown = shell("messages", "show", item["id"], "--json").document
    assert "manual (manual, the address)" in json.dumps(shown["events"])
    # Sent again only when nothing stops it any more.
    again = shell("messages", "resend", item["id"])
    assert again.code == 1
    assert "1 left alone: suppressed" in again.err
    shell("suppressions", "remove", "ann@example.org")
    assert shell("messages", "resend", item["id"]).code == 0
    assert len(journal.claim(journal.lease())) == 1


def test_a_resend_of_failures_says_how_many_are_suppressed(shell: Shell, journal: Rig) -> None:
    journal.add(2)
    claims = journal.claim(journal.lease())
    journal.settle(*(settlement(c, State.BOUNCED, attempt=attempt("bounce")) for c in claims))
    shell("suppressions", "add", "m0@example.org")
    said = shell("failures", "resend", "--all", "--json")
    assert said.document == {"resend": 1}
    assert "1 left alone: suppressed" in said.err


def test_an_unsubscription_is_an_entry_of_its_own(shell: Shell) -> None:
    said = shell("suppressions", "add", "ann@example.org", "--category", "news")
    assert said.code == 0
    assert "no stream has the category news" in said.err
    shell("suppressions", "add", "ann@example.org")
    [one] = shell("suppressions", "list", "--category", "news", "--json").document["items"]
    assert (one["source"], one["reason"], one["category"]) == (
        "unsubscribe",
        "unsubscribed",
        "news",
    )
    shell("suppressions", "remove", "ann@example.org")
    # What a person asked for stays until it is named.
    assert addresses(shell) == ["ann@example.org"]
    said = shell("suppressions", "remove", "ann@example.org")
    assert said.code == 1
    assert "has no such entry" in said.err
    assert shell("suppressions", "remove", "ann@example.org", "--every").code == 0
    assert addresses(shell) == []


def test_what_a_wrong_relay_suppressed_is_removed_by_a_filter(shell: Shell, journal: Rig) -> None:
    lines = "\n".join(f"a{n}@example.org,bounce" for n in range(25))
    shell("suppressions", "import", "-", stdin=f"address,source\n{lines}".encode())
    shell("suppressions", "add", "keep@example.org")
    assert shell("suppressions", "remove").code == 2
    would = shell("suppressions", "remove", "--source", "bounce", "--dry-run", "--json")
    assert would.document == {"would": "remove", "count": 25}
    assert shell("suppressions", "remove", "--source", "bounce", stdin=b"n\n").code == 1
    done = shell("suppressions", "remove", "--source", "bounce", "--since", "1h", "-y", "--json")
    assert done.document == {"removed": 25}
    assert addresses(shell) == ["keep@example.org"]


def test_a_list_is_imported_line_by_line_and_exported_again(
    shell: Shell, journal: Rig, tmp_path: Path
) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(
        b"\xef\xbb\xbfemail,reason\nann@example.org,left\nnobody\n=b@example.org,=1+1\n\xff@x.org\n"
    )
    would = shell("suppressions", "import", str(file), "--dry-run", "--json")
    assert (would.code, would.document["read"], would.document["written"]) == (1, 2, 0)
    assert journal.count("suppressions") == 0
    said = shell("suppressions", "import", str(file), "--for", "30d")
    assert said.code == 1
    assert said.out == "imported: 2 (0 were there, 2 lines are wrong)\n"
    assert "line 3: address: must be one address or a domain" in said.err
    assert "line 5: is not UTF-8" in said.err
    assert shell("suppressions", "import", str(file)).out.startswith("imported: 2")
    assert shell("suppressions", "import", str(file)).out.startswith("imported: 0 (2 were there")
    exported = shell("suppressions", "export").out
    assert "\n'=b@example.org," in exported
    assert ",'=1+1," in exported
    shell("suppressions", "remove", "--source", "import")
    again = shell("suppressions", "import", "-", stdin=exported.encode())
    assert again.out == "imported: 2 (0 were there, 0 lines are wrong)\n"
    assert addresses(shell) == ["ann@example.org", "=b@example.org"]
    assert journal.count("actions", "verb = 'export suppressions' AND count = 2") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "nobody"), "must be one address or a domain"),
        (("add", "a@example.org", "--category", "No"), "--category No: must be a name"),
        (("add", "a@example.org", "--for", "soon"), "--for: 'soon' is not a duration"),
        (("add", "a@example.org", "--reason", "x" * 201), "--reason: must be at most 200"),
        (("list", "--source", "rumour"), "must be one of bounce, manual, import, unsubscribe"),
        (("import", "/nowhere.csv"), "/nowhere.csv cannot be read"),
    ],
)
def test_wrong_words_are_one_line(shell: Shell, words: tuple[str, ...], said: str) -> None:
    answer = shell("suppressions", *words)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
