"""What is published next, how far it is, and who publishes: over both databases."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema_rs
import pytest
import sqlalchemy as sa

from mailgate.contract.event import Event, json_schema
from mailgate.events.document import post
from mailgate.journal import outbox
from mailgate.journal.arrivals import NewParked
from mailgate.journal.orders import Order, Orders
from mailgate.journal.outbox import Outbox, Told
from mailgate.journal.retention import Retention
from mailgate.journal.surgery import Act, Surgery
from mailgate.model.ids import spell
from mailgate.model.state import State
from mailgate.model.value import replace
from tests.contract.journal.rig import BUCKET, Rig, arrival, attempt, settlement
from tests.contract.journal.test_digests import desk_of, item, wait

SPAN = 8000
SCHEMA = jsonschema_rs.validator_for(json_schema())


class Reader:
    """A publisher's view: everything after what it has marked."""

    def __init__(self, rig: Rig, me: int = 1) -> None:
        self.rig = rig
        self.outbox = Outbox(rig.database, me)
        self.reached = 0

    def hold(self) -> int | None:
        return self.rig.database.run_now(lambda c: self.outbox.hold(c, SPAN))

    def next(self, most: int = 500) -> list[Told]:
        return self.rig.database.read_now(lambda c: self.outbox.next(c, self.reached, most))

    def mark(self, told: list[Told], **refused: int) -> bool:
        before, self.reached = self.reached, told[-1].id if told else self.reached
        return self.rig.database.run_now(
            lambda c: self.outbox.advance(c, before, self.reached, SPAN, refused)
        )

    def documents(self) -> list[dict[str, Any]]:
        """What is new, checked against the published schema and the model."""
        told = self.next()
        out = [json.loads(post(one).body) for one in told]
        for one in out:
            SCHEMA.validate(one)
            Event.model_validate(one)
        assert self.mark(told)
        return out


@pytest.fixture
def reader(journal: Rig) -> Reader:
    found = Reader(journal)
    assert found.hold() == 0
    return found


def test_an_item_tells_its_digest_and_the_digest_is_a_message(journal: Rig, reader: Reader) -> None:
    desk = desk_of(journal)
    item(journal, 1, key="thread-1")
    wait(journal)
    desk.close()
    _, *rest = reader.documents()
    [made] = [one for one in rest if one["event"] == "accepted"]
    [digested] = [one for one in rest if one["event"] == "digested"]
    assert digested["digest"] == made["message"]["id"]
    assert digested["final"] is True
    assert made["message"]["identity"] == f"digest:{digested['digest']}"
    assert made["message"]["metadata"] == {"digest": "news", "digest_key": "thread-1"}


def test_a_message_is_told_from_acceptance_to_the_end(journal: Rig, reader: Reader) -> None:
    journal.store(
        arrival(
            "order-1",
            "ann@example.org",
            template="welcome",
            idempotency_key="order-1",
            own_id="4711",
            tags='["a"]',
            metadata='{"customer": 7}',
            traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
            own=json.dumps({"data": {"secret": "s3cret"}, "metadata": {"seat": "12"}}),
        )
    )
    lease = journal.lease()
    [claim] = journal.claim(lease)
    journal.settle(settlement(claim, State.DEFERRED, attempt=attempt(), error_class="greylisted"))
    [claim] = journal.claim(lease)
    sent = replace(attempt("sent", code=250), enhanced="2.0.0", reply="taken", error_class="")
    journal.settle(settlement(claim, State.SENT, attempt=sent))

    accepted, deferred, done = reader.documents()
    message = {
        "id": spell(claim.message_id),
        "own_id": "4711",
        "idempotency_key": "order-1",
        "identity": "key:order-1",
        "stream": "transactional",
        "template": "welcome",
        "recipients": 1,
        "tags": ["a"],
        "metadata": {"customer": 7},
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    }
    who = {"id": spell(claim.recipient_id), "n": 0, "email": "ann@example.org"}
    who |= {"metadata": {"seat": "12"}}
    assert accepted == {
        "version": 1,
        "id": f"{message['id']}-accepted",
        "event": "accepted",
        "at": accepted["at"],
        "producer": "shop",
        "message": message,
        "seq": 0,
    }
    assert (deferred["event"], deferred["final"], deferred["seq"]) == ("deferred", False, 3)
    assert deferred["id"] == f"{who['id']}-3"
    assert deferred["recipient"] == who
    assert deferred["attempt"] == {
        "n": 1,
        "relay": "first",
        "code": 451,
        "enhanced": "4.3.0",
        "reply": "try again",
    }
    assert deferred["error_class"] == "greylisted"
    assert deferred["due_at"].endswith("Z")
    assert (done["event"], done["final"], done["seq"]) == ("sent", True, 5)
    assert done["attempt"] == {
        "n": 2,
        "relay": "first",
        "code": 250,
        "enhanced": "2.0.0",
        "reply": "taken",
    }
    assert "s3cret" not in json.dumps([accepted, deferred, done])
    assert reader.documents() == []


def test_an_id_without_a_key_is_the_producers_own(journal: Rig, reader: Reader) -> None:
    journal.store(arrival("4711"))
    journal.store(replace(arrival("x"), identity="amqp:m-1"))
    first, second = (one["message"] for one in reader.documents())
    assert (first["own_id"], first["identity"]) == ("4711", "key:4711")
    assert "own_id" not in second
    assert second["identity"] == "amqp:m-1"


def test_of_a_sensitive_message_neither_address_nor_reply_is_told(
    journal: Rig, reader: Reader
) -> None:
    journal.store(arrival("one", "ann@example.org", sensitive=True))
    [claim] = journal.claim(journal.lease())
    said = replace(attempt("bounce"), reply="<ann@example.org> unknown")
    note = "first: 550 <ann@example.org> unknown"
    journal.settle(settlement(claim, State.BOUNCED, attempt=said, note=note))
    _, bounced = reader.documents()
    assert bounced["recipient"] == {"id": spell(claim.recipient_id), "n": 0}
    assert bounced["attempt"] == {"n": 1, "relay": "first", "code": 451, "enhanced": "4.3.0"}
    assert "ann" not in json.dumps(bounced)


def test_uncertain_and_queued_again_are_two_events_in_order(journal: Rig, reader: Reader) -> None:
    journal.add(1)
    [claim] = journal.claim(journal.lease())
    path = (State.UNCERTAIN, State.QUEUED)
    journal.settle(settlement(claim, *path, attempt=attempt("uncertain", code=0)))
    found = reader.documents()[1:]
    assert [(one["event"], one["seq"]) for one in found] == [("uncertain", 3), ("queued", 4)]
    assert "code" not in found[0]["attempt"]
    assert "due_at" in found[1]


def test_a_conflict_tells_of_the_first_message_and_of_what_was_parked(
    journal: Rig, reader: Reader
) -> None:
    first = journal.store(arrival("one"))
    journal.store(arrival("one", body_hash="other", raw=b"the other body"))
    _, conflict = reader.documents()
    parked = journal.one("SELECT id FROM parked").id
    assert conflict["event"] == "conflict"
    assert conflict["id"] == f"{spell(parked)}-conflict"
    assert conflict["message"]["id"] == spell(first.ids[0])
    assert conflict["parked"]["id"] == spell(parked)
    assert conflict["parked"]["faults"][0]["field"] == "idempotency_key"
    assert "recipient" not in conflict


def test_a_parked_document_is_told_to_whoever_it_is_from(journal: Rig, reader: Reader) -> None:
    faults = '[{"field": "to", "rule": "is required"}]'
    own = b'{"id": "mine", "idempotency_key": 7}'
    known = NewParked("amqp:m-7", "amqp", "invalid", faults, own, "shop")
    nobody = NewParked("none:1", "amqp", "invalid", faults, b"\xff{[", None)
    part = replace(known, identity="left-out:1", kind="recipient")
    journal.store(arrival("one", refused=(part,)), refused=[known, nobody])
    accepted, *found = reader.documents()
    assert [one["event"] for one in found] == ["parked"] * 3
    assert [one.get("producer") for one in found] == ["shop", None, "shop"]
    assert found[0]["message"] == {"own_id": "mine", "identity": "amqp:m-7"}
    assert found[0]["parked"]["faults"] == [{"field": "to", "rule": "is required"}]
    assert found[1]["message"] == {"identity": "none:1"}
    assert found[2]["message"] == accepted["message"]
    assert len({one["id"] for one in found}) == 3


@pytest.mark.parametrize("name", ["\\ud800", "\\u0000", "\\u001b[2J", "\\u2028", "x" * 257])
def test_a_name_that_nobody_can_hold_is_not_told(journal: Rig, reader: Reader, name: str) -> None:
    body = f'{{"id": "{name}", "idempotency_key": "{name}"}}'.encode()
    journal.store(refused=[NewParked("amqp:m-7", "amqp", "invalid", "[]", body, "shop")])
    [told] = reader.documents()
    assert told["message"] == {"identity": "amqp:m-7"}


def test_what_was_parked_and_is_deleted_takes_its_event_along(journal: Rig, reader: Reader) -> None:
    journal.store(refused=[NewParked("x", "test", "invalid", "[]", b"{}", None)])
    journal.sql("UPDATE parked SET state = 'discarded', resolved_at = 1")
    retention = Retention(journal.database)
    soon = journal.database.now() + 1000
    assert journal.database.run_now(lambda c: retention.parked(c, soon, 100)) == 1
    assert journal.count("events") == 0


def test_what_an_operator_does_is_told_without_the_operators_name(
    journal: Rig, reader: Reader
) -> None:
    [number] = journal.add(1)
    act = Act("root@ops", "cancel", "secret reason")
    surgery = Surgery(journal.database)
    journal.database.run_now(lambda c: surgery.move(c, [number], State.CANCELLED, act))
    _, cancelled = reader.documents()
    assert (cancelled["event"], cancelled["final"]) == ("cancelled", True)
    assert cancelled["reason"] == "by an operator: cancel"
    assert "root" not in json.dumps(cancelled)


def test_a_command_is_answered_by_an_event(journal: Rig, reader: Reader) -> None:
    def order(verb: str, target: str, **more: Any) -> Order:
        said = {"by": "id", "raw": b"", "source": "test", "body_hash": f"{verb}{target}"}
        return Order(verb, "shop", target=target, identity=f"{verb}:{target}", **said | more)

    def say(*orders: Order) -> None:
        journal.database.run_now(lambda c: carrier.carry_out(c, orders, journal.database.now()))

    carrier = Orders(journal.database, journal.ids)
    [number] = journal.add(1, prefix="sensitive")
    reader.documents()
    say(
        order("cancel", "sensitive0", own_id="c-1", reason="changed my mind"),
        order("ask", "nothing"),
        order("cancel", "to-come"),
    )
    cancelled, state, unknown, early = reader.documents()
    assert cancelled["reason"] == "by your command cancel: changed my mind"
    assert state["event"] == "state"
    assert state["command"] == {
        "verb": "cancel",
        "id": "c-1",
        "target": {"id": "sensitive0"},
        "result": "done",
        "final": True,
        "recipients": [{"id": spell(number), "n": 0, "state": "cancelled", "attempts": 0}],
    }
    assert state["message"]["identity"] == "key:sensitive0"
    assert (unknown["producer"], unknown["message"]) == ("shop", {"identity": "key:nothing"})
    assert unknown["command"] == {
        "verb": "ask",
        "target": {"id": "nothing"},
        "result": "unknown",
    }
    assert (early["command"]["result"], early["message"]) == ("early", {"identity": "key:to-come"})
    say(order("ask", "nothing"))
    [again] = reader.documents()
    assert again["id"] != unknown["id"]
    # An answer about nothing is deleted by itself.
    retention = Retention(journal.database)
    later = journal.database.now() + 1
    assert journal.database.run_now(lambda c: retention.answers(c, later, 100)) == 2


def test_an_event_keeps_its_id_when_it_is_read_again(journal: Rig, reader: Reader) -> None:
    journal.add(3)
    once = [post(told) for told in reader.next()]
    assert [post(told) for told in reader.next()] == once
    assert len({one.id for one in once}) == 3


def test_events_are_read_in_batches_that_follow_each_other(journal: Rig, reader: Reader) -> None:
    journal.add(7)
    seen = []
    while told := reader.next(most=3):
        assert len(told) <= 3
        seen += [one.id for one in told]
        assert reader.mark(told)
    assert len(seen) == 7
    assert seen == sorted(seen)


# --- who publishes -----------------------------------------------------------------------


def test_one_publishes_at_a_time(processes: Callable[[], Rig]) -> None:
    first, second = Reader(processes(), 1), Reader(processes(), 2)
    assert first.hold() == 0
    assert second.hold() is None
    assert first.hold() == 0
    first.rig.add(2)
    told = first.next()
    assert first.mark(told)
    first.rig.database.run_now(first.outbox.let_go)
    assert second.hold() == told[-1].id


def test_whoever_lost_the_lease_marks_nothing(processes: Callable[[], Rig]) -> None:
    first, second = Reader(processes(), 1), Reader(processes(), 2)
    assert first.hold() == 0
    first.rig.add(2)
    told = first.next()
    first.rig.sql("UPDATE outbox SET until = 1")
    assert second.hold() == 0
    assert not first.mark(told, shop=1)
    assert second.rig.one("SELECT reached FROM outbox").reached == 0
    assert second.rig.count("outbox") == 1


def test_many_that_ask_at_once_are_told_that_one_publishes(
    processes: Callable[[], Rig],
) -> None:
    readers = [Reader(processes(), n + 1) for n in range(4)]
    with ThreadPoolExecutor(4) as threads:
        held = list(threads.map(lambda one: one.hold(), readers))
    assert sorted(held, key=str) == [0, None, None, None]


def test_it_is_seen_whether_anybody_publishes(journal: Rig) -> None:
    def free() -> bool:
        now = journal.database.now()
        return journal.database.read_now(lambda c: outbox.free(c, now))

    assert free()
    reader = Reader(journal)
    reader.hold()
    assert not free()
    journal.database.run_now(reader.outbox.let_go)
    assert free()


# --- how far -------------------------------------------------------------------------------


def test_what_waits_is_counted_with_its_age(journal: Rig, reader: Reader) -> None:
    def look() -> outbox.Waiting:
        return journal.database.read_now(outbox.waiting)

    assert (look().count, look().age(journal.database.now())) == (0, 0.0)
    journal.add(3)
    found = look()
    assert found.count == 3
    assert 0 <= found.age(found.oldest + 5000) == 5.0
    reader.mark(reader.next(most=2))
    assert look().count == 1
    reader.mark(reader.next())
    assert look() == outbox.Waiting(0, None)


def test_it_is_told_when_an_event_was_published(journal: Rig, reader: Reader) -> None:
    def when(told: Told) -> Any:
        one = [(told.id, told.at)]
        found = journal.database.read_now(lambda c: outbox.published_at(c, "shop", one))
        return found[told.id]

    journal.add(2)
    first, second = reader.next()
    assert when(first) == outbox.NOT_YET
    reader.mark([first])
    assert when(second) == outbox.NOT_YET
    assert abs(when(first) - journal.database.now()) < 5000
    reader.mark([second])
    assert abs(when(second) - journal.database.now()) < 5000
    # After a week only that it was.
    retention = Retention(journal.database)
    later = journal.database.now() + 10_000
    assert journal.database.run_now(lambda c: retention.published(c, later, 100)) >= 1
    assert when(second) is None


def test_a_number_is_never_given_again(journal: Rig, reader: Reader) -> None:
    """Else what is new would stand below what was reached, and nobody be told of it."""
    journal.add(1, prefix="a")
    reader.mark(reader.next())
    journal.sql("DELETE FROM events")
    journal.add(1, prefix="b")
    assert len(reader.next()) == 1


# --- a producer that is refused ----------------------------------------------------------------


def test_a_refused_producer_waits_alone(journal: Rig, reader: Reader) -> None:
    other = replace(BUCKET, producer="other")
    journal.store(arrival("a"), arrival("b", bucket=other))
    journal.store(arrival("c"))
    told = reader.next()
    assert reader.mark(told, shop=told[0].id - 1)
    behind = journal.database.read_now(reader.outbox.behind)
    assert behind == {"shop": told[0].id - 1}
    # Refused again later, it still waits from where it did.
    journal.store(arrival("d"))
    more = reader.next()
    assert reader.mark(more, shop=more[0].id - 1)
    assert journal.database.read_now(reader.outbox.behind) == behind
    assert journal.database.read_now(outbox.waiting).refused == ("shop",)
    assert journal.database.read_now(
        lambda c: outbox.published_at(c, "shop", [(told[0].id, told[0].at)])
    ) == {told[0].id: outbox.NOT_YET}
    missed = journal.database.read_now(
        lambda c: reader.outbox.between(c, behind["shop"], reader.reached)
    )
    assert [one.identity for one in missed if one.producer == "shop"] == ["key:a", "key:c", "key:d"]
    after = behind["shop"]
    work = reader.outbox.caught_up
    journal.database.run_now(lambda c: work(c, "shop", after, reader.reached))
    assert journal.database.read_now(reader.outbox.behind) == {}


def test_whoever_lost_the_lease_does_not_say_that_a_producer_has_caught_up(
    journal: Rig, reader: Reader
) -> None:
    journal.store(arrival("a"))
    told = reader.next()
    reader.mark(told, shop=0)
    journal.sql("UPDATE outbox SET holder = 99 WHERE producer = ''")
    work = reader.outbox.caught_up
    journal.database.run_now(lambda c: work(c, "shop", 0, reader.reached))
    assert journal.database.read_now(reader.outbox.behind) == {"shop": 0}


# --- PostgreSQL shows what commits late under a lower number -----------------------------------


@pytest.fixture
def postgres_rigs(migrated_postgres_url: str, rigs_of: Callable[[str], Rig]) -> Callable[[], Rig]:
    return lambda: rigs_of(migrated_postgres_url)


class Late:
    """A transaction that has drawn numbers and has not ended."""

    def __init__(self, url: str, count: int = 1) -> None:
        self._engine = sa.create_engine(url)
        self._connection = self._engine.connect()
        self._transaction = self._connection.begin()
        for _ in range(count):
            self._connection.execute(
                sa.text(
                    "INSERT INTO events (message_id, seq, kind, at) VALUES (1, 0, 'accepted', 1)"
                )
            )

    def commit(self) -> None:
        self._transaction.commit()
        self._end()

    def roll_back(self) -> None:
        self._transaction.rollback()
        self._end()

    def _end(self) -> None:
        self._connection.close()
        self._engine.dispose()


def test_what_commits_late_is_not_passed_over(postgres_rigs: Callable[[], Rig]) -> None:
    reader = Reader(postgres_rigs())
    reader.hold()
    reader.rig.add(1, prefix="a")
    late = Late(reader.rig.url, 2)
    reader.rig.add(1, prefix="b")
    told = reader.next()
    assert [one.id for one in told] == [1]
    reader.mark(told)
    for _ in range(3):
        assert reader.next() == []
    late.commit()
    assert [one.id for one in reader.next()] == [2, 3, 4]


def test_numbers_that_were_drawn_in_vain_hold_nothing_up(
    postgres_rigs: Callable[[], Rig],
) -> None:
    reader = Reader(postgres_rigs())
    reader.hold()
    Late(reader.rig.url, 3).roll_back()
    reader.rig.add(1, prefix="a")
    assert reader.next() == []
    assert [one.id for one in reader.next()] == [4]


def test_a_writer_that_began_later_is_not_waited_for(postgres_rigs: Callable[[], Rig]) -> None:
    """Only who could still bring the missing number counts: there is always somebody writing."""
    reader = Reader(postgres_rigs())
    reader.hold()
    first = Late(reader.rig.url)
    reader.rig.add(1, prefix="a")
    assert reader.next() == []
    second = Late(reader.rig.url)
    first.roll_back()
    reader.rig.add(1, prefix="b")
    told = reader.next()
    assert [one.id for one in told] == [2]
    reader.mark(told)
    second.commit()
    assert [one.id for one in reader.next()] == [3, 4]


def test_under_many_writers_every_event_is_read_once_and_in_order(
    journal_url: str, rigs_of: Callable[[str], Rig]
) -> None:
    writers = [rigs_of(journal_url) for _ in range(3)]
    reader = Reader(rigs_of(journal_url))
    reader.hold()

    def write(which: int) -> None:
        rig = writers[which]
        for n in range(15):
            rig.add(2, prefix=f"w{which}-{n}-")

    seen: list[Told] = []
    with ThreadPoolExecutor(3) as threads:
        at_work = [threads.submit(write, n) for n in range(3)]
        while not all(one.done() for one in at_work):
            told = reader.next(most=7)
            seen += told
            assert reader.mark(told)
        for one in at_work:
            one.result()
    for _ in range(30):
        told = reader.next()
        seen += told
        assert reader.mark(told)
    assert len(seen) == len({one.identity for one in seen}) == 90
    assert [one.id for one in seen] == sorted(one.id for one in seen)
