"""``mailgate rules``: which rule a reply meets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli.conftest import Shell

OWN = """
[rules.weekend]
codes = ["550"]
text = "weekend"
then = "defer"
scope = "domain"
wait = "2h"
"""


@pytest.fixture
def own(shell: Shell, tmp_path: Path) -> Shell:
    file = tmp_path / "rules.toml"
    file.write_text(OWN, encoding="utf-8")
    shell.environment["MAILGATE_CONFIG"] = str(file)
    return shell


def test_a_reply_shows_its_rule_and_what_follows(own: Shell) -> None:
    said = own("rules", "test", "550 5.7.1 Closed at the weekend", "--phase", "dot")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        "rule: weekend",
        "then: defer",
        "error class: weekend",
        "scope: domain",
        "suppress: never",
        "wait: 7200 s",
        "enhanced: 5.7.1",
    ]
    found = own("rules", "test", "550 5.1.1 User unknown", "--json").document
    assert (found["rule"], found["then"], found["suppress"]) == ("built-in", "bounce", "now")
    assert found["because"]["phases"] == ["rcpt"]
    many = own("rules", "test", "-", "--json", stdin=b"550-5.1.1 User\n550 5.1.1 unknown\n")
    assert many.document["error_class"] == "unknown_address"


def test_what_has_no_code_is_no_reply(shell: Shell) -> None:
    said = shell("rules", "test", "hello")
    assert said.code == 2
    assert "such as 550 5.1.1" in said.err


def test_own_rules_are_listed(own: Shell) -> None:
    [item] = own("rules", "list", "--json").document["items"]
    assert (item["name"], item["then"], item["says"]["text"]) == ("weekend", "defer", "weekend")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("550 No", "--phase", "dots"), "--phase dots: must be one of connect"),
        (("hello",), "that is no reply of a relay"),
        (("",), "that is no reply of a relay"),
        (("250 OK",), "250 is no refusal"),
        (("550 No", "--relay", "nowhere"), "there is no such relay"),
    ],
)
def test_wrong_words_are_one_line(shell: Shell, words: tuple[str, ...], said: str) -> None:
    answer = shell("rules", "test", *words)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
