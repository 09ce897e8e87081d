"""``mailgate limits show`` as an operator types it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailgate.model.state import State
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


def test_without_limits_there_is_nothing_to_show(shell: Shell) -> None:
    assert shell("limits", "show", "--json").document == {"items": []}
