"""What was sent lately, by the journal's own record, and which limits it charged."""

from __future__ import annotations

import asyncio
from typing import Any

from mailgate.config.shape import Config
from mailgate.dispatch.recall import recall
from mailgate.journal import recent
from mailgate.journal.recent import nothing_sent
from mailgate.journal.settling import Attempt
from mailgate.limits.memory import Use
from mailgate.model.state import State
from tests.contract.journal.rig import Rig, arrival, settlement

RELAYS = {n: {"host": "127.0.0.1", "security": "none"} for n in ("first", "second")}


def configured(limits: dict[str, Any], **relays: Any) -> Config:
    named = {name: {**RELAYS[name], **relays.get(name, {})} for name in RELAYS}
    return Config.model_validate({"relays": named, "limits": limits})


def recalled(journal: Rig, config: Config) -> dict[str, list[Use]]:
    return {key: uses for key, _, uses in asyncio.run(recall(journal.database, config))}


def tried(ago: int, relay: str, now: int) -> Attempt:
    return Attempt(relay, now - ago - 5, now - ago, "sent", "dot", 250, "2.0.0", "ok", "")


def count(uses: list[Use]) -> int:
    return sum(u.times for u in uses)


def test_attempts_of_the_last_period_charge_their_limits(journal: Rig) -> None:
    config = configured(
        {
            "global": "1000/h",
            "producer": {"shop": "10/h"},
            "sender": {"example.com": "5/h"},
            "domain": {"slow.example": "20/h", "other.example": "20/h"},
        },
        first={"rate": "3/m", "domains": {"slow.example": "7/m"}},
    )
    now = journal.database.now()
    mails = [arrival("a", "a@slow.example"), arrival("b", '"a@b"@slow.example')]
    journal.store(*mails, arrival("c", "c@free.example"), arrival("d"))
    claims = {c.address.email[0]: c for c in journal.claim(journal.lease(), 3)}
    done = settlement(claims.pop("a"), State.SENT, attempt=tried(30_000, "first", now))
    again = settlement(claims.pop('"'), State.DEFERRED, attempt=tried(600_000, "second", now))
    journal.settle(done, again)
    # c is being sent: just now, as far as one can know, and by either relay.
    uses = recalled(journal, config)
    assert {key: count(said) for key, said in uses.items()} == {
        "global": 3,
        "producer:shop": 3,
        "relay:first": 2,
        "domain:slow.example": 2,
        "domain:other.example": 0,
        "relay:first domain:slow.example": 1,
        "sender:example.com": 3,
    }
    ages = sorted(u.ago for u in uses["global"])
    for ago, real in zip(ages, (0, 30_000, 600_000), strict=True):
        # Never earlier than it was.
        assert (real - 100) * 1000 <= ago <= (real + 5_000) * 1000


def test_a_producer_is_charged_by_first_attempts_only(journal: Rig) -> None:
    config = configured({"producer": {"shop": "10/h"}, "global": "10/h"})
    now = journal.database.now()
    journal.add(1)
    lease = journal.lease()
    for _ in range(3):
        [claim] = journal.claim(lease)
        journal.settle(settlement(claim, State.DEFERRED, attempt=tried(10, "first", now)))
    [claim] = journal.claim(lease)
    uses = recalled(journal, config)
    assert (count(uses["global"]), count(uses["producer:shop"])) == (4, 1)


def test_what_is_over_is_not_told_and_a_day_of_mail_is_told_in_few_words(
    journal: Rig, monkeypatch: Any
) -> None:
    monkeypatch.setattr(recent, "PORTION", 700)
    now = journal.database.now()
    journal.sql(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)"
        " INSERT INTO attempts (recipient_id, n, relay, started_at, ended_at, kind, phase,"
        " code, enhanced, reply, error_class)"
        " SELECT i, 1, 'first', 0, :now - (9999 - i) * 17280, 'sent', 'dot', 250, '', '', ''"
        " FROM n",
        now=now,
    )
    # 10,000 attempts over two days: half of them within the last.
    uses = recalled(journal, configured({"global": "100000/d"}))["global"]
    within = count([u for u in uses if u.ago < 86_400_000_000])
    assert 5000 <= within <= 5000 + 2 * 9
    assert len(uses) < 1200
    assert count(recalled(journal, configured({"global": "100/m"}))["global"]) in (4, 5)


def test_an_installation_that_never_sent_is_known_as_such(journal: Rig) -> None:
    assert journal.database.read_now(nothing_sent)
    journal.add(2)
    assert journal.database.read_now(nothing_sent)
    [claim] = journal.claim(journal.lease(), 1)
    assert not journal.database.read_now(nothing_sent)
    journal.settle(settlement(claim, State.SENT, attempt=tried(0, "first", 1000)))
    assert not journal.database.read_now(nothing_sent)
