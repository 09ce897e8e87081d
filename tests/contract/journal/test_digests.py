"""Digests in the journal: each item goes in one mail, whoever is killed or comes between."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from mailgate.config.digests import Digest
from mailgate.config.shape import Config
from mailgate.dispatch.throttles import charges
from mailgate.journal import suppressions
from mailgate.journal.gathering import Gather, slot
from mailgate.journal.letters import letter_text
from mailgate.journal.queue import Candidate
from mailgate.journal.retention import Retention
from mailgate.journal.suppressions import Suppression
from mailgate.journal.surgery import Act, Surgery
from mailgate.model.address import Address
from mailgate.model.ids import spell
from mailgate.model.message import Letter
from mailgate.model.state import Lane, State
from mailgate.model.value import replace
from mailgate.operations.digests import CHUNK, Closer
from tests.contract.journal.rig import Rig, arrival

NOW = Digest(max_wait="1ms")
SECRET = b"secret"


@dataclass
class Desk:
    """A journal with a closer, and what it rang."""

    rig: Rig
    closer: Closer
    rung: list[Lane]

    def close(self) -> int:
        return self.closer.go()

    def mails(self) -> list[dict[str, Any]]:
        """The digests' letters, the oldest first."""
        rows = self.rig.all("SELECT id, body, template, metadata FROM messages ORDER BY id")
        return [
            {**json.loads(r.body), "id": r.id}
            for r in rows
            if json.loads(r.metadata or "{}").get("digest")
        ]


def desk_of(rig: Rig, **config: Any) -> Desk:
    rung: list[Lane] = []
    said = Config.model_validate({"relays": {"first": {"host": "a.example"}}, **config})
    closer = Closer(rig.database, said, SECRET, subject_of, rung.append)
    return Desk(rig, closer, rung)


def subject_of(letter: Letter) -> str | None:
    return letter.subject


@pytest.fixture
def desk(journal: Rig) -> Desk:
    return desk_of(journal, digests={"news": {"cap": 3}})


def item(
    rig: Rig,
    n: int,
    *,
    to: str = "ann@example.org",
    key: str = "",
    digest: Digest = NOW,
    name: str | None = None,
    said: Mapping[str, Any] | None = None,
    **changes: Any,
) -> int:
    """Store one item; gives its recipient."""
    data = {"events": [{"text": f"item {n}", **(said or {})}]}
    body = letter_text(
        sender=Address("shop@example.com", "Shop"),
        mail_from="bounces@example.com",
        domain="example.com",
        template="activity_digest",
        data=data,
        locale="ar" if n % 2 else "en",
    )
    whole = arrival(f"i{n}{to}{key}", to, body=body, template="activity_digest", **changes)
    gather = Gather(slot("news", "shop", key, to), "news", "shop", key, digest, name)
    [one] = whole.recipients
    [id_] = rig.store(replace(whole, recipients=(replace(one, gather=gather),))).ids
    return int(rig.one("SELECT id FROM recipients WHERE message_id = :m", m=id_).id)


def texts(mail: Mapping[str, Any]) -> list[str]:
    return [event["text"] for event in mail["data"]["events"]]


def wait(rig: Rig) -> None:
    """Let what is due in a millisecond be due."""
    rig.sql("UPDATE digests SET due_at = due_at - 1000")


def test_items_become_one_mail_and_say_which(desk: Desk) -> None:
    rig = desk.rig
    ids = [item(rig, n) for n in range(5)]
    assert {rig.row(i).state for i in ids} == {"gathering"}
    assert rig.heads() == []
    wait(rig)
    assert desk.close() == 1
    [mail] = desk.mails()
    assert texts(mail) == ["item 4", "item 3", "item 2"]
    assert mail["data"]["more"] == 2
    assert mail["locale"] == "en"
    assert mail["mail_from"] == "bounces@example.com"
    [head] = rig.heads()
    assert (head.email, head.message_id) == ("ann@example.org", mail["id"])
    assert desk.rung == [Lane.NORMAL]
    for i in ids:
        assert rig.row(i).state == "digested"
        assert rig.events(i) == [(2, "digested")]
        said = rig.one("SELECT detail FROM events WHERE recipient_id = :i", i=i).detail
        assert json.loads(said) == {"digest": spell(mail["id"])}
    assert rig.count("digests") == 0
    assert desk.close() == 0
    assert len(desk.mails()) == 1


def test_each_recipient_and_key_has_a_mail_of_its_own(desk: Desk) -> None:
    for n, (to, key) in enumerate([("a@x.org", "1"), ("a@x.org", "2"), ("b@x.org", "1")] * 2):
        item(desk.rig, n, to=to, key=key)
    wait(desk.rig)
    desk.close()
    assert sorted(len(texts(mail)) for mail in desk.mails()) == [2, 2, 2]


def test_what_is_not_due_waits_and_what_comes_puts_it_off_until_max_wait(desk: Desk) -> None:
    rig, quiet = desk.rig, Digest(after="10m", max_wait="15m")
    item(rig, 1, digest=quiet)
    before = rig.one("SELECT * FROM digests")
    assert before.due_at == before.opened_at + 600_000
    assert desk.close() == 0
    # As if the first had come eight minutes ago.
    rig.sql("UPDATE digests SET opened_at = opened_at - 480000, due_at = due_at - 480000")
    item(rig, 2, digest=quiet)
    after = rig.one("SELECT * FROM digests")
    assert after.due_at == after.opened_at + 900_000
    assert after.items == 2


def test_once_due_nothing_puts_it_off(desk: Desk) -> None:
    rig, quiet = desk.rig, Digest(after="10m")
    item(rig, 1, digest=quiet)
    rig.sql("UPDATE digests SET due_at = 1")
    item(rig, 2, digest=quiet)
    assert rig.one("SELECT due_at FROM digests").due_at == 1


def test_with_so_many_items_it_goes_at_once(desk: Desk) -> None:
    few = Digest(after="10m", max_items=3)
    for n in range(3):
        assert desk.close() == 0
        item(desk.rig, n, digest=few)
    assert desk.close() == 1
    assert len(desk.mails()) == 1


def test_an_item_that_comes_after_the_closing_opens_the_next(desk: Desk) -> None:
    item(desk.rig, 1)
    wait(desk.rig)
    desk.close()
    item(desk.rig, 2)
    wait(desk.rig)
    desk.close()
    assert [texts(mail) for mail in desk.mails()] == [["item 1"], ["item 2"]]


def test_of_several_with_one_id_the_latest_is_shown_and_all_are_digested(desk: Desk) -> None:
    ids = [item(desk.rig, n, name="c-1") for n in range(3)]
    wait(desk.rig)
    desk.close()
    [mail] = desk.mails()
    assert texts(mail) == ["item 2"]
    assert "more" not in mail["data"]
    assert {desk.rig.row(i).state for i in ids} == {"digested"}


def test_a_field_orders_what_is_shown(journal: Rig) -> None:
    desk = desk_of(journal, digests={"news": {"cap": 2, "order": "-rank"}})
    for n, rank in enumerate([1, 9, 5]):
        item(journal, n, said={"rank": rank})
    wait(journal)
    desk.close()
    [mail] = desk.mails()
    assert texts(mail) == ["item 1", "item 2"]
    assert mail["data"]["more"] == 1


def test_a_cancelled_item_is_in_no_digest(desk: Desk) -> None:
    rig = desk.rig
    gone, stays = item(rig, 1), item(rig, 2)
    act = Act("ann", "cancel", "a mistake")
    moved = rig.database.run_now(
        lambda c: Surgery(rig.database).move(c, [gone], State.CANCELLED, act)
    )
    assert moved.recipient_ids == (gone,)
    wait(rig)
    desk.close()
    [mail] = desk.mails()
    assert texts(mail) == ["item 2"]
    assert [rig.row(i).state for i in (gone, stays)] == ["cancelled", "digested"]


def test_when_all_are_cancelled_no_mail_goes(desk: Desk) -> None:
    rig = desk.rig
    gone = item(rig, 1)
    act = Act("ann", "cancel", "a mistake")
    rig.database.run_now(lambda c: Surgery(rig.database).move(c, [gone], State.CANCELLED, act))
    wait(rig)
    desk.close()
    assert desk.mails() == []
    assert rig.count("digests") == 0


def test_an_item_that_expired_first_is_left_out(desk: Desk) -> None:
    rig = desk.rig
    over, stays = item(rig, 1, expires_at=rig.database.now() - 1), item(rig, 2)
    wait(rig)
    desk.close()
    [mail] = desk.mails()
    assert texts(mail) == ["item 2"]
    assert "more" not in mail["data"]
    assert (rig.row(over).state, rig.row(over).error_class) == ("expired", "expired")
    assert rig.row(stays).state == "digested"


def test_who_is_suppressed_before_the_closing_gets_none(desk: Desk) -> None:
    rig = desk.rig
    ids = [item(rig, n) for n in range(2)]
    entry = Suppression("ann@example.org", "complained", "manual")
    rig.database.run_now(lambda c: suppressions.put(c, entry, 1, replace=True))
    wait(rig)
    desk.close()
    assert desk.mails() == []
    assert {rig.row(i).state for i in ids} == {"suppressed"}


def test_a_sensitive_item_forgets_what_it_said_and_makes_its_digest_sensitive(desk: Desk) -> None:
    rig = desk.rig
    item(rig, 1, sensitive=True)
    open_one = item(rig, 2)
    wait(rig)
    desk.close()
    [mail] = desk.mails()
    bodies = {r.id: (json.loads(r.body), r.sensitive) for r in rig.all("SELECT * FROM messages")}
    assert bodies.pop(mail["id"])[1]
    kept = rig.row(open_one).message_id
    assert "data" in bodies.pop(kept)[0]
    [(left, _)] = bodies.values()
    assert left["redacted"]
    assert "data" not in left


def test_a_digest_whose_number_a_message_drew_too_takes_another(desk: Desk) -> None:
    rig = desk.rig
    one = item(rig, 1)
    number = rig.one("SELECT id FROM digests").id
    rig.add(1)
    rig.sql("UPDATE messages SET id = :id WHERE identity = 'key:m0'", id=number)
    wait(rig)
    desk.close()
    [mail] = desk.mails()
    assert mail["id"] != number
    linked = rig.one("SELECT digest_id FROM digest_items WHERE recipient_id = :i", i=one)
    assert linked.digest_id == mail["id"]


def test_items_of_a_digest_that_is_configured_no_longer_go_all_the_same(journal: Rig) -> None:
    desk = desk_of(journal)
    item(journal, 1)
    wait(journal)
    desk.close()
    assert [texts(mail) for mail in desk.mails()] == [["item 1"]]


def test_which_digest_an_item_was_in_is_forgotten_with_it(desk: Desk) -> None:
    rig = desk.rig
    item(rig, 1)
    wait(rig)
    desk.close()
    rig.sql("UPDATE recipients SET state = 'sent' WHERE state = 'queued'")
    retention, later = Retention(rig.database), rig.database.now() + 60_000
    ids = [r.id for r in rig.all("SELECT id FROM messages ORDER BY id")]
    assert rig.database.run_now(lambda c: retention.delete(c, later, ids)) == 2
    assert rig.count("digest_items") == 0


def test_what_gathers_is_not_over_however_old(desk: Desk) -> None:
    rig = desk.rig
    item(rig, 1)
    retention, later = Retention(rig.database), rig.database.now() + 60_000
    assert rig.database.read_now(lambda c: retention.over(c, later, 10)) == []


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("point", ["_move", "_messages", "_recipients", "_events", "_delete"])
def test_broken_off_anywhere_in_the_closing_nothing_of_it_stands(
    desk: Desk, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = desk.rig
    ids = [item(rig, n) for n in range(2)]
    wait(rig)
    digests = desk.closer._digests

    class Deadly:
        def write(self, *_: Any) -> None:
            raise _Killed

    with monkeypatch.context() as patched:
        if point in ("_move", "_delete"):
            # The statement runs and then the process is gone.
            whole = Connection.execute
            fatal = getattr(digests, point)

            def execute(self: Any, statement: Any, *args: Any, **kw: Any) -> Any:
                found = whole(self, statement, *args, **kw)
                if statement is fatal:
                    raise _Killed
                return found

            patched.setattr(Connection, "execute", execute)
        else:
            patched.setattr(digests, point, Deadly())
        with pytest.raises(_Killed):
            desk.close()
    assert desk.mails() == []
    assert {rig.row(i).state for i in ids} == {"gathering"}
    assert desk.close() == 1
    assert len(desk.mails()) == 1
    assert {rig.row(i).state for i in ids} == {"digested"}


@pytest.mark.parametrize("seed", [1, 2])
def test_items_that_race_with_closings_and_cancels_are_each_in_one_mail(
    processes: Callable[[], Rig], seed: int
) -> None:
    """Two write, two close, one cancels: at the end each item is in one mail or cancelled."""
    chance = random.Random(seed)
    writers = [processes() for _ in range(2)]
    closers = [desk_of(processes(), digests={"news": {"cap": 1000}}) for _ in range(2)]
    surgeon = processes()
    over = threading.Event()
    faults: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                faults.append(error)
                raise

        return run

    def write(rig: Rig, first: int) -> Callable[[], None]:
        def work() -> None:
            for n in range(first, first + 60):
                item(rig, n, key=str(chance.randrange(3)))

        return work

    def close(desk: Desk) -> Callable[[], None]:
        def work() -> None:
            while not over.is_set():
                desk.close()

        return work

    def cancel() -> None:
        act = Act("ann", "cancel", "")
        while not over.is_set():
            ids = [r.id for r in surgeon.all("SELECT id FROM recipients WHERE state='gathering'")]
            some = [i for i in ids if i % 7 == 0]
            if some:
                surgeon.database.run_now(
                    lambda c, some=some: Surgery(surgeon.database).move(  # type: ignore[misc]
                        c, some, State.CANCELLED, act
                    )
                )

    writing = [threading.Thread(target=guarded(write(r, 100 * i))) for i, r in enumerate(writers)]
    rest = [threading.Thread(target=guarded(close(d))) for d in closers]
    rest.append(threading.Thread(target=guarded(cancel)))
    for thread in (*writing, *rest):
        thread.start()
    for thread in writing:
        thread.join(60)
    over.set()
    for thread in rest:
        thread.join(60)
    assert not faults
    wait(surgeon)
    while closers[0].close():
        pass
    told = [text for mail in closers[0].mails() for text in texts(mail)]
    ended = surgeon.all("SELECT state, count(*) AS n FROM recipients GROUP BY state")
    counts = {r.state: r.n for r in ended}
    assert set(counts) <= {"digested", "cancelled", "queued"}
    assert len(told) == len(set(told)) == counts["digested"]
    assert counts["digested"] + counts.get("cancelled", 0) == 120
    assert surgeon.count("digests") == 0


def test_two_closers_share_what_is_due(processes: Callable[[], Rig]) -> None:
    first, second = (desk_of(processes()) for _ in range(2))
    for n in range(CHUNK + 5):
        item(first.rig, n, to=f"p{n}@example.org")
    wait(first.rig)
    while first.close() + second.close():
        pass
    assert len(first.mails()) == CHUNK + 5


# --- what a throttle turned away ------------------------------------------------------


THROTTLED: dict[str, Any] = {
    "throttles": {"few": {"limit": 1, "window": "1h", "on_limit": "digest"}},
}


def take(rig: Rig, lease: int, config: Config) -> list[str]:
    """One take of all that is due; gives who was claimed."""
    candidates = [Candidate(h, "first", charges(h, config, SECRET)) for h in rig.heads()]
    turn = rig.database.run_now(
        lambda c: rig.queue.turn(c, lease=lease, settlements=(), candidates=candidates)
    )
    return [claim.letter.subject or claim.letter.template or "" for claim in turn.claims]


def age(rig: Rig, ms: int) -> None:
    """Everything happened so much earlier."""
    rig.sql("UPDATE throttle_hits SET at = at - :ms", ms=ms)
    rig.sql("UPDATE digests SET due_at = due_at - :ms, opened_at = opened_at - :ms", ms=ms)


def test_what_a_throttle_turns_away_goes_as_one_mail_when_it_has_room(journal: Rig) -> None:
    desk = desk_of(journal, **THROTTLED)
    config = Config.model_validate({"relays": {"first": {"host": "a.example"}}, **THROTTLED})
    lease = journal.lease()
    journal.store(*(arrival(f"m{n}", "ann@example.org") for n in range(4)))
    assert take(journal, lease, config) == ["about m0"]
    states = journal.all("SELECT state FROM recipients ORDER BY id")
    assert [r.state for r in states] == ["sending", "gathering", "gathering", "gathering"]
    assert journal.heads() == []
    # The first has reached its relay, and its window is over but for a second.
    journal.sql("UPDATE recipients SET state = 'sent' WHERE state = 'sending'")
    age(journal, 3_599_000)
    assert desk.close() == 0
    age(journal, 2_000)
    assert desk.close() == 1
    [mail] = desk.mails()
    assert texts(mail) == ["about m3", "about m2", "about m1"]
    # It took the room itself, so it goes, and who comes now waits for the next.
    journal.store(arrival("m9", "ann@example.org"))
    assert take(journal, lease, config) == ["activity_digest"]
    assert journal.count("recipients", "state = 'gathering'") == 1


def test_who_comes_when_there_is_room_joins_those_who_wait_for_it(journal: Rig) -> None:
    desk = desk_of(journal, **THROTTLED)
    config = Config.model_validate({"relays": {"first": {"host": "a.example"}}, **THROTTLED})
    lease = journal.lease()
    journal.store(*(arrival(f"m{n}", "ann@example.org") for n in range(2)))
    take(journal, lease, config)
    journal.sql("UPDATE recipients SET state = 'sent' WHERE state = 'sending'")
    age(journal, 3_601_000)
    journal.store(arrival("late", "ann@example.org"))
    assert take(journal, lease, config) == []
    assert desk.close() == 1
    [mail] = desk.mails()
    assert texts(mail) == ["about late", "about m1"]


def test_a_digest_for_which_there_is_no_room_waits_on(journal: Rig) -> None:
    desk = desk_of(journal, **THROTTLED)
    config = Config.model_validate({"relays": {"first": {"host": "a.example"}}, **THROTTLED})
    lease = journal.lease()
    journal.store(*(arrival(f"m{n}", "ann@example.org") for n in range(2)))
    take(journal, lease, config)
    # Still on its way to the relay when its window ought to be over.
    age(journal, 3_601_000)
    assert desk.close() == 1
    assert desk.mails() == []
    assert journal.one("SELECT due_at FROM digests").due_at > journal.database.now() + 3_000_000
    journal.sql("UPDATE recipients SET state = 'sent' WHERE state = 'sending'")
    age(journal, 3_601_000)
    assert desk.close() == 1
    assert [texts(mail) for mail in desk.mails()] == [["about m1"]]
