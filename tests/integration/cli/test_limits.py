"""``mailgate limits show`` as an operator types it."""

from __future__ import annotations

import pytest

from mailgate.journal import connections
from mailgate.journal.queue import Candidate
from mailgate.limits.policy import Cap
from mailgate.model.state import State
from mailgate.model.value import replace
from tests.contract.journal.rig import Rig, arrival, attempt, settlement
from tests.integration.cli.conftest import Shell

LIMITS = {
    "MAILGATE_LIMITER__URL": "journal",
    "MAILGATE_LIMITS__GLOBAL": "100/h",
    "MAILGATE_LIMITS__PRODUCER__SHOP": "10/h",
    "MAILGATE_LIMITS__DOMAIN": '{"example.org" = "5/h", "example.com" = "5/m"}',
    "MAILGATE_LIMITS__SENDER": '{"example.com" = "7/d"}',
}


def test_limits_show_tells_what_was_used_and_who_waits(
    shell: Shell, journal: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in LIMITS.items():
        monkeypatch.setenv(name, value)
    journal.add(2, "sent")
    lease, now = journal.lease(), journal.database.now()
    for claim in journal.claim(lease):
        ended = replace(attempt("sent", "main", 250), started_at=now - 5, ended_at=now)
        journal.settle(settlement(claim, State.SENT, attempt=ended))
    journal.store(arrival("a", "a@example.org"), arrival("b", "b@example.org"))
    items = {i["name"]: i for i in shell("limits", "show", "--json").document["items"]}
    assert {name: item["used"] for name, item in items.items()} == {
        "global": 2,
        "producer:shop": 2,
        "domain:example.org": 2,
        "domain:example.com": 0,
        "sender:example.com": 2,
    }
    assert {item["next_in"] for item in items.values()} == {0.0}
    assert items["global"]["waiting"] == items["producer:shop"]["waiting"] == 2
    assert items["global"]["rate"] == "100/h"


def test_limits_show_tells_what_is_open_of_what_may_be_at_once(
    shell: Shell, journal: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILGATE_LIMITER__URL", "journal")
    monkeypatch.setenv("MAILGATE_LIMITS__DOMAIN", '{"example.org" = {max_connections = 2}}')
    monkeypatch.setenv("MAILGATE_RELAYS__MAIN__HOST", "relay.example")
    monkeypatch.setenv("MAILGATE_RELAYS__MAIN__MAX_CONNECTIONS_TOTAL", "9")
    journal.add(3)
    lease, caps = journal.lease(), (Cap("domain:example.org", 2),)
    candidates = [Candidate(h, "main", caps=caps) for h in journal.heads()]
    database = journal.database
    database.run_now(
        lambda c: journal.queue.turn(c, lease=lease, settlements=(), candidates=candidates)
    )
    database.run_now(lambda c: connections.take(c, lease, "main", 3, 9))
    shown = shell("limits", "show", "--json").document["items"]
    assert [(i["name"], i["rate"], i["used"], i["next_in"]) for i in shown] == [
        ("relay:main connections", "9 at once", 4, 0.0),
        ("domain:example.org conversations", "2 at once", 2, None),
    ]


def test_without_limits_there_is_nothing_to_show(shell: Shell) -> None:
    assert shell("limits", "show", "--json").document == {"items": []}
