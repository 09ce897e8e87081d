"""Orders of producers: each is answered once, whatever it meets on its way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mailgate.journal.orders import EARLY, Order, forget, lapse
from mailgate.journal.rescheduling import When
from mailgate.model.ids import spell
from mailgate.model.state import Lane, State
from tests.contract.journal.rig import Rig, arrival, settlement

HOUR = 3_600_000


def order(verb: str = "cancel", target: str = "m0", **changes: Any) -> Order:
    values: dict[str, Any] = {
        "verb": verb,
        "producer": "shop",
        "identity": f"key:{verb} {target}",
        "body_hash": f"hash of {verb} {target}",
        "source": "test",
        "raw": b"{}",
        "by": "idempotency_key",
        "target": target,
    }
    return Order(**{**values, **changes})


def later(journal: Rig, ms: int = HOUR, **changes: Any) -> When:
    return When(journal.database.now() + ms, **changes)


def answers(journal: Rig) -> list[dict[str, Any]]:
    rows = journal.all("SELECT * FROM events WHERE kind = 'state' ORDER BY id")
    return [{"message_id": r.message_id, **json.loads(r.detail)} for r in rows]


def results(journal: Rig) -> list[str]:
    return [a["result"] for a in answers(journal)]


def states(journal: Rig) -> list[str]:
    return [r.state for r in journal.all("SELECT state FROM recipients ORDER BY id")]


def test_a_cancelled_message_is_never_claimed(journal: Rig) -> None:
    [recipient] = journal.add(1)
    stored = journal.store(orders=[order(reason="ordered twice")])
    assert (stored.orders, stored.repeated) == (1, 0)
    assert journal.row(recipient).state == "cancelled"
    assert journal.claim(journal.lease()) == []
    assert journal.events(recipient) == [(2, "cancelled")]
    [told] = journal.all("SELECT detail FROM events WHERE kind = 'cancelled'")
    assert json.loads(told.detail) == {
        "by": "producer shop",
        "verb": "cancel",
        "reason": "ordered twice",
    }
    [answer] = answers(journal)
    assert answer == {
        "message_id": journal.row(recipient).message_id,
        "producer": "shop",
        "command": "cancel",
        "idempotency_key": "m0",
        "result": "done",
        "final": True,
        "recipients": [{"id": spell(recipient), "n": 0, "state": "cancelled", "attempts": 0}],
    }


def test_a_message_is_named_by_its_key_by_its_own_id_or_by_ours(journal: Rig) -> None:
    people = journal.add(2)
    ours = spell(journal.row(people[1]).message_id)
    journal.store(orders=[order(by="id"), order(by="id", target=ours)])
    assert states(journal) == ["cancelled", "cancelled"]
    # A key of ours names nothing where a key is asked for.
    journal.add(1, prefix="other")
    journal.store(orders=[order(target=spell(journal.row(people[0]).message_id))])
    assert results(journal) == ["done", "done", "early"]


def test_an_own_id_beside_a_key_names_the_message_too(journal: Rig) -> None:
    journal.store(arrival("k1", own_id="m1"))
    journal.store(orders=[order(by="id", target="m1"), order(by="id", target="m2")])
    assert (states(journal), results(journal)) == (["cancelled"], ["done", "early"])
    # Also before it has come.
    journal.store(arrival("k2", own_id="m2"))
    assert (states(journal), results(journal)[2:]) == (["cancelled"] * 2, ["done"])


def test_nobody_touches_or_sees_what_others_have_sent(journal: Rig) -> None:
    [recipient] = journal.add(1)
    ours = spell(journal.row(recipient).message_id)
    stranger = {"producer": "thief", "by": "id"}
    journal.store(
        orders=[
            order(**stranger),
            order(target=ours, **stranger),
            order("ask", target=ours, **stranger),
            order("reschedule", target=ours, when=later(journal), **stranger),
        ]
    )
    assert states(journal) == ["queued"]
    assert results(journal) == ["early", "early", "unknown", "early"]
    assert not any("recipients" in a for a in answers(journal))


def test_one_recipient_of_many(journal: Rig) -> None:
    journal.store(arrival("m0", "ann@example.org", "bob@example.org"))
    journal.store(orders=[order(recipient="ANN@example.org")])
    assert states(journal) == ["cancelled", "queued"]
    journal.store(orders=[order(recipient="carl@example.org", identity="key:2")])
    assert results(journal) == ["done", "unknown"]


def test_what_is_being_sent_is_too_late(journal: Rig) -> None:
    journal.store(arrival("m0", "ann@example.org", "bob@example.org"))
    heads = journal.heads()
    [claim] = journal.turn(journal.lease(), heads[:1]).claims
    when = later(journal)
    journal.store(orders=[order("reschedule", when=when), order()])
    # Bob's is stopped, Ann's is under way.
    assert results(journal) == ["too_late", "partly"]
    assert sorted(states(journal)) == ["cancelled", "sending"]
    journal.settle(settlement(claim, State.SENT))
    journal.store(orders=[order(identity="key:again")])
    assert results(journal)[-1] == "partly"


@pytest.mark.parametrize("state", ["bounced", "failed", "expired", "suppressed", "throttled"])
def test_what_has_ended_without_a_mail_needs_no_cancelling(journal: Rig, state: str) -> None:
    [recipient] = journal.add(1)
    journal.sql("UPDATE recipients SET state = :s WHERE id = :i", s=state, i=recipient)
    journal.store(orders=[order()])
    assert results(journal) == ["done"]


def test_a_repeated_order_is_absorbed_and_another_with_its_id_parked(journal: Rig) -> None:
    journal.add(1)
    first = order("reschedule", when=later(journal))
    journal.store(orders=[first])
    second = order("reschedule", identity="key:2", when=later(journal, 2 * HOUR))
    journal.store(orders=[second])
    stored = journal.store(orders=[first])  # redelivered: it must not turn back time
    assert (stored.orders, stored.repeated, stored.conflicts) == (0, 1, 0)
    assert second.when is not None
    assert journal.one("SELECT due_at FROM recipients").due_at == second.when.send_at
    stored = journal.store(orders=[order("cancel", identity=first.identity)])
    assert (stored.conflicts, stored.parked) == (1, 1)
    assert states(journal) == ["queued"]
    [parked] = journal.all("SELECT * FROM parked")
    assert (parked.kind, json.loads(parked.faults)[0]["field"]) == ("conflict", "id")


def test_rescheduled_mail_is_due_at_its_new_time(journal: Rig) -> None:
    [recipient] = journal.add(1, send_at=journal.database.now() + 9 * HOUR)
    when = later(journal)
    journal.store(orders=[order("reschedule", when=when)])
    row = journal.row(recipient)
    assert (row.due_at, row.state, row.seq) == (when.send_at, "queued", 2)
    assert journal.one("SELECT send_at FROM messages").send_at == when.send_at
    assert journal.heads() == []
    assert len(journal.heads(ahead=HOUR + 1)) == 1
    # Into the past is now, and rings.
    stored = journal.store(orders=[order("reschedule", identity="key:2", when=later(journal, -1))])
    assert stored.lanes == {Lane.NORMAL}
    assert len(journal.claim(journal.lease())) == 1
    assert results(journal) == ["done", "done"]


def test_a_look_from_before_claims_nothing_that_was_rescheduled(journal: Rig) -> None:
    journal.add(1)
    heads = journal.heads()
    journal.store(orders=[order("reschedule", when=later(journal, -1))])
    assert journal.turn(journal.lease(), heads).claims == []


def test_the_time_by_which_it_expires_moves_with_its_stream_alone(journal: Rig) -> None:
    now = journal.database.now()
    journal.add(1, prefix="stream", lifetime=600_000)
    journal.add(1, prefix="said", expires_at=now + HOUR // 2)
    journal.add(1, prefix="open")
    when = later(journal, lifetimes={"transactional": 600_000})
    journal.store(
        orders=[order("reschedule", target=f"{p}0", when=when) for p in ("stream", "said", "open")]
    )
    rows = journal.all("SELECT expires_at FROM recipients ORDER BY id")
    expires = [r.expires_at for r in rows]
    assert expires == [when.send_at + 600_000, now + HOUR // 2, None]
    told = answers(journal)
    assert [t["result"] for t in told] == ["done", "refused", "done"]
    assert told[1]["reason"] == "send_at is not before the message's expires_at"


def test_asking_tells_how_each_recipient_stands(journal: Rig) -> None:
    journal.store(arrival("m0", "ann@example.org", "bob@example.org"))
    [claim] = journal.turn(journal.lease(), journal.heads()[:1]).claims
    due = journal.database.now() + HOUR
    journal.settle(settlement(claim, State.DEFERRED, due_at=due, error_class="greylisted"))
    asked = order("ask", own_id="q1")
    journal.store(orders=[asked, asked])
    first, second = answers(journal)
    assert first == second  # who asks twice is answered twice
    assert (first["result"], first["command_id"], first["final"]) == ("done", "q1", False)
    ann, bob = first["recipients"]
    assert ann["state"] == "deferred"
    assert (ann["due_at"], ann["error_class"]) == (due, "greylisted")
    assert (bob["n"], bob["state"]) == (1, "queued")
    assert "@" not in json.dumps(first)


def test_who_asks_for_nothing_known_is_told_so(journal: Rig) -> None:
    journal.store(orders=[order("ask", own_id="q1")])
    [answer] = answers(journal)
    assert (answer["message_id"], answer["result"], answer["producer"]) == (0, "unknown", "shop")
    assert journal.count("messages") == 0


# --- before the message ------------------------------------------------------------------


def test_an_order_in_the_batch_of_its_message(journal: Rig) -> None:
    journal.store(arrival("m0"), arrival("m1"), orders=[order(), order(target="m1")])
    assert states(journal) == ["cancelled", "cancelled"]
    assert results(journal) == ["done", "done"]


def test_an_order_that_comes_before_its_message_meets_it(journal: Rig) -> None:
    when = later(journal)
    journal.store(
        orders=[
            order(recipient="bob@example.org"),
            order("reschedule", when=when),
            order("ask"),
        ]
    )
    assert results(journal) == ["early", "early", "unknown"]
    stored = journal.store(arrival("m0", "ann@example.org", "bob@example.org"))
    assert stored.accepted == 1
    rows = journal.all("SELECT email, state, due_at, message_id FROM recipients ORDER BY n")
    assert [(r.email, r.state) for r in rows] == [
        ("ann@example.org", "queued"),
        ("bob@example.org", "cancelled"),
    ]
    assert rows[0].due_at == when.send_at
    assert [a["message_id"] for a in answers(journal)] == [stored.ids[0]] * 5
    assert results(journal)[3:] == ["done", "done"]
    assert journal.one("SELECT recipients FROM messages").recipients == 2
    # In the order in which it happened: accepted before what became of it.
    kinds = [r.kind for r in journal.all("SELECT kind FROM events ORDER BY id")]
    assert kinds[3:] == ["accepted", "cancelled", "state", "queued", "state"]
    # The message is an ordinary one from here on.
    assert journal.store(arrival("m0", "ann@example.org", "bob@example.org")).repeated == 1
    assert journal.store(arrival("m0", body_hash="other")).conflicts == 1
    journal.store(orders=[order("ask")])
    assert results(journal)[-1] == "done"


def test_a_message_that_comes_twice_in_a_batch_takes_its_place_once(journal: Rig) -> None:
    journal.store(orders=[order()])
    stored = journal.store(arrival("m0"), arrival("m0"), arrival("m0", body_hash="x"))
    assert (stored.accepted, stored.repeated, stored.conflicts) == (1, 1, 1)
    assert states(journal) == ["cancelled"]


def test_an_order_waits_for_a_day_and_no_longer(journal: Rig) -> None:
    journal.store(orders=[order()])
    journal.sql("UPDATE orders SET at = at - :day", day=EARLY + 1000)
    journal.store(arrival("m0"))
    assert states(journal) == ["queued"]


def test_orders_are_forgotten(journal: Rig) -> None:
    journal.add(1)
    journal.store(orders=[order(), order(target="never", recipient="ann@example.org")])
    now = journal.database.now()
    lapsed = journal.database.run_now(lambda c: lapse(c, now - HOUR, now - HOUR, 10))
    assert lapsed == 0
    # What waits is forgotten first, with the address that it names.
    assert journal.database.run_now(lambda c: lapse(c, now - HOUR, now + 1, 10)) == 1
    assert journal.count("orders", "said IS NOT NULL") == 0
    assert journal.database.run_now(lambda c: lapse(c, now + 1, now + 1, 10)) == 1
    assert journal.count("orders") == 0


def test_an_address_is_forgotten_in_orders_that_wait(journal: Rig) -> None:
    named = order(target="never", recipient="Ann@example.org")
    journal.store(orders=[named, order(target="other", recipient="joann@example.org")])
    journal.database.run_now(lambda c: forget(c, "ann@Example.org"))
    [left] = journal.all("SELECT said FROM orders")
    assert "joann" in left.said


@pytest.mark.parametrize("first", ["message", "order"])
def test_message_and_order_that_meet_in_two_transactions(
    first: str, processes: Callable[[], Rig]
) -> None:
    """Neither sees the other's row yet; whoever commits last must find the first."""
    one, two = processes(), processes()
    one.store(arrival("warm"))  # the buckets are there
    two.store(arrival("warm"))
    writing, both = threading.Event(), threading.Event()
    works = {
        "message": lambda rig: rig.arrivals._writing([arrival("m0")], (), (), ()),
        "order": lambda rig: rig.arrivals._writing([], (), (), [order()]),
    }
    second = "order" if first == "message" else "message"

    def slow(connection: Any) -> None:
        works[first](one)(connection)
        writing.set()
        both.wait(0.3)  # on SQLite the second cannot even begin

    thread = threading.Thread(target=lambda: one.database.run_now(slow))
    thread.start()
    assert writing.wait(10)
    two.database.run_now(works[second](two))
    thread.join()
    [row] = one.all(
        "SELECT r.state FROM recipients r JOIN messages m ON m.id = r.message_id"
        " WHERE m.identity = 'key:m0'"
    )
    assert row.state == "cancelled"
    assert results(one)[-1] == "done"


def test_a_cancel_and_a_claim_race_for_one_mail(processes: Callable[[], Rig]) -> None:
    """Whoever wins, the answer says the truth."""
    one, two = processes(), processes()
    for n in range(8):
        [recipient] = one.add(1, prefix=f"race{n}-")
        lease, heads = one.lease(), one.heads()
        go = threading.Barrier(2)

        def cancel(n: int = n, go: threading.Barrier = go) -> None:
            go.wait()
            two.store(orders=[order(target=f"race{n}-0")])

        thread = threading.Thread(target=cancel)
        thread.start()
        go.wait()
        claims = one.turn(lease, heads).claims
        thread.join()
        expected = ("sending", "too_late") if claims else ("cancelled", "done")
        assert (one.row(recipient).state, results(one)[-1]) == expected
