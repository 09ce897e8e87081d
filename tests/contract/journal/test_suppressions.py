"""Who is not written to: found at acceptance and before each attempt, added by bounces."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest

from mailgate.journal import suppression_list, suppressions
from mailgate.journal.queue import Queue
from mailgate.journal.suppression_list import Entries
from mailgate.journal.suppressions import Blame, Suppression, Suppressions, Wanted
from mailgate.journal.surgery import Act, Surgery
from mailgate.model.state import State
from tests.contract.journal.rig import Rig, arrival, attempt, settlement

DAY = 86_400_000


def suppress(journal: Rig, address: str, *, replace: bool = True, **changes: Any) -> bool:
    entry = Suppression(address, **{"reason": "gone", "source": "manual", **changes})
    now = journal.database.now()
    return journal.database.run_now(lambda c: suppressions.put(c, entry, now, replace=replace))


def state(journal: Rig, email: str) -> str:
    return str(journal.one("SELECT state FROM recipients WHERE email = :e", e=email).state)


def stopped(journal: Rig, *asked: tuple[str, str, str], ahead: int = 0) -> set[str]:
    """The addresses among (address, producer, category) that an entry stops."""
    look = Suppressions(journal.database).look
    wanted = [Wanted(n, *one) for n, one in enumerate(asked)]
    now = journal.database.now() + ahead
    found = journal.database.read_now(lambda c: look(c, wanted, now))
    return {asked[n][0] for n in found}


# --- at acceptance -------------------------------------------------------------------


def test_a_suppressed_recipient_is_accepted_with_its_reason_and_not_queued(journal: Rig) -> None:
    suppress(journal, "ann@example.org", reason="unknown_address", source="bounce")
    stored = journal.store(arrival("m", "Ann@example.org", "bob@example.org"))
    assert (stored.accepted, stored.suppressed) == (1, 1)
    assert state(journal, "Ann@example.org") == State.SUPPRESSED
    assert state(journal, "bob@example.org") == State.QUEUED
    row = journal.one("SELECT * FROM recipients WHERE state = 'suppressed'")
    assert (row.error_class, row.attempts, row.claims) == ("suppressed", 0, 0)
    assert journal.events(row.id) == [(1, "suppressed")]
    detail = json.loads(journal.one("SELECT detail FROM events WHERE kind = 'suppressed'").detail)
    assert detail == {
        "error_class": "suppressed",
        "note": "unknown_address (bounce, the address)",
    }
    assert [c.address.email for c in journal.claim(journal.lease())] == ["bob@example.org"]


def test_a_domain_is_suppressed_without_its_subdomains(journal: Rig) -> None:
    suppress(journal, "example.org")
    journal.store(arrival("m", "ann@example.org", "ann@mx.example.org", "ann@example.com"))
    assert state(journal, "ann@example.org") == State.SUPPRESSED
    assert state(journal, "ann@mx.example.org") == State.QUEUED
    assert state(journal, "ann@example.com") == State.QUEUED


@pytest.mark.parametrize(
    ("entry", "producer", "category", "stops"),
    [
        ({}, "shop", "", True),
        ({}, "shop", "news", True),
        ({"producer": "shop"}, "shop", "", True),
        ({"producer": "shop"}, "billing", "", False),
        ({"category": "news"}, "shop", "news", True),
        ({"category": "news"}, "shop", "offers", False),
        # A password reset has no category: nobody unsubscribes from it.
        ({"category": "news"}, "shop", "", False),
        ({"producer": "shop", "category": "news"}, "shop", "news", True),
        ({"producer": "shop", "category": "news"}, "billing", "news", False),
    ],
)
def test_an_entry_reaches_as_far_as_it_says(
    journal: Rig, entry: dict[str, str], producer: str, category: str, stops: bool
) -> None:
    suppress(journal, "ann@example.org", **entry)
    assert bool(stopped(journal, ("ann@example.org", producer, category))) is stops


def test_an_expired_entry_stops_nobody(journal: Rig) -> None:
    now = journal.database.now()
    suppress(journal, "ann@example.org", expires_at=now + DAY)
    ann = ("ann@example.org", "shop", "")
    assert stopped(journal, ann) == {"ann@example.org"}
    assert stopped(journal, ann, ahead=DAY + 1000) == set()


def test_the_categories_of_a_message_are_those_of_its_stream(journal: Rig) -> None:
    suppress(journal, "ann@example.org", category="news")
    journal.store(arrival("m", "ann@example.org", category="news"))
    journal.store(arrival("n", "ann@example.org"))
    rows = journal.all("SELECT state FROM recipients ORDER BY id")
    assert [r.state for r in rows] == ["suppressed", "queued"]


# --- before each attempt -------------------------------------------------------------


def test_what_was_accepted_before_is_stopped_before_its_attempt(journal: Rig) -> None:
    [ann, bob] = journal.add(2)
    suppress(journal, "m0@example.org")
    turn = journal.turn(journal.lease(), journal.heads())
    assert [c.recipient_id for c in turn.claims] == [bob]
    assert turn.suppressed == 1
    row = journal.row(ann)
    assert (row.state, row.error_class, row.attempts, row.token) == (
        "suppressed",
        "suppressed",
        0,
        1,
    )
    assert journal.events(ann) == [(2, "suppressed")]


def test_a_retry_is_stopped_too(journal: Rig) -> None:
    [ann] = journal.add(1)
    [claim] = journal.claim(journal.lease())
    journal.settle(settlement(claim, State.DEFERRED, attempt=attempt()))
    suppress(journal, "m0@example.org")
    turn = journal.turn(journal.lease(), journal.heads())
    assert (turn.claims, turn.suppressed) == ([], 1)
    assert journal.row(ann).attempts == 1


def test_unsubscribed_mail_is_stopped_before_its_attempt_by_its_streams_category(
    journal: Rig,
) -> None:
    journal.queue = Queue(journal.database, {"news": "offers"})
    [_, reset] = [journal.add(1, "n", stream="news")[0], journal.add(1, "t")[0]]
    for address in ("n0@example.org", "t0@example.org"):
        suppress(journal, address, category="offers", source="unsubscribe")
    turn = journal.turn(journal.lease(), journal.heads())
    assert [c.recipient_id for c in turn.claims] == [reset]
    assert turn.suppressed == 1


def test_a_head_that_another_took_meanwhile_is_left_alone(journal: Rig) -> None:
    journal.add(1)
    seen = journal.heads()
    [claim] = journal.turn(journal.lease(), seen).claims
    suppress(journal, "m0@example.org")
    turn = journal.turn(journal.lease(), seen)
    assert turn.claims == []
    assert journal.row(claim.recipient_id).state == "sending"


# --- bounces -------------------------------------------------------------------------


def blame(journal: Rig, **changes: Any) -> None:
    now = journal.database.now()
    held = Blame("ann@example.org", "unknown_address", "main: 550 No", now + 90 * DAY)
    held = replace(held, **changes)
    writer = Suppressions(journal.database)
    journal.database.run_now(lambda c: writer.blame(c, [held], now))


def test_a_bounce_and_its_suppression_are_one_transaction(journal: Rig) -> None:
    journal.add(1)
    [claim] = journal.claim(journal.lease())
    now = journal.database.now()
    held = Blame("m0@example.org", "unknown_address", "first: 550 5.1.1 No", now + DAY)
    done = settlement(claim, State.BOUNCED, attempt=attempt("bounce"), blame=held)
    stale = settlement(claim, State.BOUNCED, attempt=attempt("bounce"), blame=held, token=99)
    journal.settle(stale)
    # Not ours to settle any more: nothing is held against anybody.
    assert journal.count("suppressions") == 0
    journal.settle(done)
    row = journal.one("SELECT * FROM suppressions")
    assert (row.address, row.source, row.reason) == ("m0@example.org", "bounce", "unknown_address")
    assert (row.producer, row.category, row.evidence) == ("", "", "first: 550 5.1.1 No")
    assert row.expires_at == now + DAY


def test_hints_add_up_when_they_are_apart(journal: Rig) -> None:
    often = {"reason": "mailbox_full", "hits": 3, "apart": DAY, "within": 30 * DAY}

    def a_day_later() -> None:
        journal.sql(f"UPDATE bounce_hints SET last_at = last_at - {DAY + 1000}")

    blame(journal, **often)
    blame(journal, **often)
    blame(journal, **often)
    assert journal.one("SELECT hits FROM bounce_hints").hits == 1
    a_day_later()
    blame(journal, **often)
    assert journal.count("suppressions") == 0
    a_day_later()
    blame(journal, **often)
    assert journal.one("SELECT reason FROM suppressions").reason == "mailbox_full"


def test_hints_long_ago_count_no_more(journal: Rig) -> None:
    often = {"reason": "mailbox_full", "hits": 2, "apart": DAY, "within": 30 * DAY}
    blame(journal, **often)
    journal.sql(f"UPDATE bounce_hints SET last_at = last_at - {31 * DAY}")
    blame(journal, **often)
    assert journal.count("suppressions") == 0


def test_hints_of_two_kinds_are_counted_apart(journal: Rig) -> None:
    for reason in ("mailbox_full", "recipient_refused"):
        blame(journal, reason=reason, hits=2, apart=0, within=DAY)
    assert journal.count("suppressions") == 0
    assert journal.count("bounce_hints") == 2


def test_a_mail_that_was_taken_forgets_the_hints(journal: Rig) -> None:
    blame(journal, address="m0@example.org", reason="mailbox_full", hits=3)
    blame(journal, address="other@example.org", reason="mailbox_full", hits=3)
    journal.add(1)
    [claim] = journal.claim(journal.lease())
    journal.settle(settlement(claim, State.SENT, attempt=attempt("sent"), took="m0@example.org"))
    assert journal.one("SELECT address FROM bounce_hints").address == "other@example.org"


def test_a_bounce_never_shortens_what_a_person_decided(journal: Rig) -> None:
    suppress(journal, "ann@example.org", reason="complained")
    blame(journal)
    row = journal.one("SELECT * FROM suppressions")
    assert (row.reason, row.source, row.expires_at) == ("complained", "manual", None)
    suppress(journal, "ann@example.org", expires_at=journal.database.now() + 1000)
    blame(journal)
    assert journal.one("SELECT source FROM suppressions").source == "bounce"


# --- by people -----------------------------------------------------------------------


def found(journal: Rig, **wanted: Any) -> list[str]:
    now = journal.database.now()
    rows = journal.database.read_now(
        lambda c: suppression_list.find(c, Entries(**wanted), now, 100)
    )
    return [row.entry.address for row in rows]


def test_entries_are_found_by_what_they_say(journal: Rig) -> None:
    now = journal.database.now()
    suppress(journal, "ann@example.org", reason="unknown_address", source="bounce")
    suppress(journal, "ann@example.org", category="news", source="unsubscribe")
    suppress(journal, "bob_b@example.com", producer="shop")
    suppress(journal, "example.org")
    suppress(journal, "old@example.org", expires_at=now - 1)
    assert found(journal) == ["ann@example.org"] * 2 + ["bob_b@example.com", "example.org"]
    assert found(journal, address="example.org") == ["example.org"]
    assert found(journal, domain="example.org") == ["ann@example.org"] * 2 + ["example.org"]
    assert found(journal, category="news") == ["ann@example.org"]
    assert found(journal, category="", domain="example.org") == ["ann@example.org", "example.org"]
    assert found(journal, producer="shop") == ["bob_b@example.com"]
    assert found(journal, reason="unknown_address", source="bounce") == ["ann@example.org"]
    assert found(journal, expired=True) == ["old@example.org"]
    assert found(journal, since=now + DAY) == []
    assert len(found(journal, until=now + DAY)) == 4


def test_removing_an_entry_forgets_the_hints_as_well(journal: Rig) -> None:
    blame(journal, hits=2)
    suppress(journal, "ann@example.org")
    number = journal.one("SELECT id FROM suppressions").id
    assert journal.database.run_now(lambda c: suppression_list.remove(c, [number])) == 1
    assert journal.database.run_now(lambda c: suppression_list.remove(c, [number])) == 0
    assert journal.count("suppressions") == journal.count("bounce_hints") == 0


def test_a_clean_up_deletes_what_has_no_effect_any_more(journal: Rig) -> None:
    now = journal.database.now()
    suppress(journal, "ann@example.org", expires_at=now - 1)
    suppress(journal, "bob@example.org", expires_at=now + DAY)
    suppress(journal, "eve@example.org")
    blame(journal, hits=2)
    blame(journal, address="bob@example.org", hits=2)
    journal.sql("UPDATE bounce_hints SET last_at = 1 WHERE address = 'ann@example.org'")
    gone = journal.database.run_now(lambda c: suppression_list.sweep(c, now, 30 * DAY, 100))
    assert gone == 2
    assert found(journal) == ["bob@example.org", "eve@example.org"]
    assert journal.one("SELECT address FROM bounce_hints").address == "bob@example.org"


def test_who_is_suppressed_is_not_sent_again_by_a_resend(journal: Rig) -> None:
    [ann, bob] = journal.add(2)
    claims = journal.claim(journal.lease())
    journal.settle(*(settlement(c, State.BOUNCED, attempt=attempt("bounce")) for c in claims))
    suppress(journal, "m0@example.org")
    surgery = Surgery(journal.database)
    act = Act("me", "resend", "")
    moved = journal.database.run_now(lambda c: surgery.move(c, [ann, bob], State.QUEUED, act))
    assert (moved.recipient_ids, moved.suppressed) == ((bob,), 1)
    assert journal.row(ann).state == "bounced"


def test_two_workers_hold_the_same_address_to_blame_at_once(
    journal: Rig, processes: Callable[[], Rig]
) -> None:
    others = [processes(), processes()]
    threads = [Thread(target=blame, args=(rig,), kwargs={"hits": 1}) for rig in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert journal.count("suppressions") == 1
