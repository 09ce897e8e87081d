"""``relays``, ``pause`` and ``resume`` as an operator types them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mailgate.config.breakers import Breakers as Policy
from mailgate.journal.breakers import Breakers
from mailgate.limits.breaker import Kind, Record, Subject
from tests.contract.journal.rig import Rig
from tests.integration.cli.conftest import Shell
from tests.integration.smtp.scripted import ScriptedRelay


def write(journal: Rig, who: Subject, **record: Any) -> None:
    now = journal.database.now()
    breakers = Breakers(journal.database, Policy(), lambda: 0.5)
    value = Record(**{"cut_at": now if "pace" in record else 0, **record})
    journal.database.run_now(lambda c: breakers.write(c, {who: value}, now))


def test_relays_list_shows_who_is_well(shell: Shell) -> None:
    said = shell("relays", "list")
    assert said.code == 0
    assert said.out.split("\n")[1].split() == ["main", "127.0.0.1:587", "closed"]
    [item] = shell("relays", "list", "--json").document["items"]
    assert (item["state"], item["rate"], item["domains"], item["senders"]) == (
        "closed",
        None,
        [],
        [],
    )


def test_relays_list_shows_what_is_open_why_and_how_slow(shell: Shell, journal: Rig) -> None:
    now = journal.database.now()
    refused = {"error_class": "auth_refused", "code": 535, "reply": "5.7.8 ann@example.com: no"}
    write(
        journal,
        Subject(Kind.RELAY, "main"),
        opened=2,
        since=now,
        until=now + 60_000,
        failures=2,
        **refused,
    )
    write(journal, Subject(Kind.DOMAIN, "main", "slow.example"), pace=240.0, before=480.0)
    write(journal, Subject(Kind.SENDER, "main", "a@shop.example"), opened=1, since=1, until=now)
    [item] = shell("relays", "list", "--json").document["items"]
    assert (item["state"], item["reason"], item["failures"]) == ("open", "auth_refused", 2)
    assert item["until"] > item["since"]
    assert "ann@" not in item["reply"]
    assert "535" in item["reply"]
    [slow] = item["domains"]
    assert (slow["name"], slow["state"], slow["effective_rate"]) == (
        "slow.example",
        "slowed",
        "4/s",
    )
    [sender] = item["senders"]
    assert (sender["name"], sender["state"]) == ("a@shop.example", "half-open")
    text = shell("relays", "list", "--show-personal-data").out
    assert "ann@example.com" in text
    assert "to slow.example" in text
    assert "from a@shop.example" in text
    status = shell("status")
    assert "no mail through main: auth_refused" in status.out
    assert "no mail from a@shop.example through main" in status.out
    assert len(shell("status", "--json").document["breakers"]) == 2


def test_a_paused_relay_is_shown_and_resumed_with_an_audit(shell: Shell, journal: Rig) -> None:
    assert shell("relays", "pause", "main").code == 2, "a reason is asked for"
    said = shell("relays", "pause", "main", "--reason", "maintenance")
    assert (said.code, said.out) == (0, "relay main is paused\n")
    assert shell("relays", "pause", "main", "--reason", "again").code == 1
    [item] = shell("relays", "list", "--json").document["items"]
    assert item["state"] == "paused"
    assert item["reason"].endswith(": maintenance")
    assert "paused relay main" in shell("status").out
    assert shell("relays", "resume", "main", "--reason", "done").out == "relay main goes on\n"
    said = shell("relays", "resume", "main")
    assert (said.code, said.err) == (1, "mailgate: relay main is not paused\n")
    rows = journal.all("SELECT verb, reason, detail FROM actions ORDER BY id")
    assert [tuple(r) for r in rows] == [
        ("pause", "maintenance", "relay main"),
        ("resume", "done", "relay main"),
    ]


def test_resuming_a_relay_whose_breaker_is_open_has_it_probed(shell: Shell, journal: Rig) -> None:
    now = journal.database.now()
    write(journal, Subject(Kind.RELAY, "main"), opened=1, since=now, until=now + 600_000)
    said = shell("relays", "resume", "main")
    assert (said.code, said.out) == (0, "relay main goes on; 1 breakers are probed now\n")
    [item] = shell("relays", "list", "--json").document["items"]
    assert item["state"] == "half-open"
    assert journal.count("actions") == 1


@pytest.mark.parametrize(
    ("kind", "name", "kept"),
    [
        ("all", "", ""),
        ("lane", "bulk", "bulk"),
        ("stream", "codes", "codes"),
        ("producer", "shop", "shop"),
        ("domain", "Bücher.Example", "xn--bcher-kva.example"),
        ("template", "welcome", "welcome"),
    ],
)
def test_everything_can_be_paused_by_kind(shell: Shell, kind: str, name: str, kept: str) -> None:
    words = [kind, name] if name else [kind]
    assert shell("pause", *words, "--reason", "r").code == 0
    [item] = shell("pauses", "list", "--json").document["items"]
    assert (item["kind"], item["name"], item["reason"]) == (kind, kept, "r")
    assert shell("resume", *words).code == 0
    assert shell("pauses", "list").out == "nothing found\n"


@pytest.mark.parametrize(
    "words", [("relay", "gone"), ("lane", "fast"), ("stream",), ("all", "x"), ("domain", "a b")]
)
def test_what_is_not_there_cannot_be_paused(shell: Shell, words: tuple[str, ...]) -> None:
    said = shell("pause", *words, "--reason", "r")
    assert said.code == 2
    assert said.err.startswith(f"mailgate: {words[0]}")
    assert len(said.err.splitlines()) == 1


# --- relays test -----------------------------------------------------------------------------


@pytest.fixture
def relay(shell: Shell) -> Iterator[ScriptedRelay]:
    """A scripted relay on a loop of its own: the command has one too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = ScriptedRelay()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(5)
    shell.environment["MAILGATE_RELAYS__MAIN__PORT"] = str(server.port)
    yield server
    asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_relays_test_says_no_mail_and_what_is_offered(shell: Shell, relay: ScriptedRelay) -> None:
    said = shell("relays", "test", "main")
    assert said.code == 0
    assert said.out.startswith("main takes mail: ready in ")
    document = shell("relays", "test", "main", "--json").document
    assert (document["ok"], document["phase"]) == (True, None)


def test_relays_test_of_one_that_is_away(shell: Shell) -> None:
    shell.environment["MAILGATE_RELAYS__MAIN__PORT"] = "1"
    said = shell("relays", "test", "main")
    assert said.code == 1
    assert said.out.startswith("main failed at connect: connect_failed\n")
    assert shell("relays", "test", "main", "--json").document["ok"] is False
    assert shell("relays", "test", "none").code == 2
