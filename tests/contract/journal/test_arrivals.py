"""Batches of deliveries become rows once, whatever is delivered again."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Barrier, Thread

import pytest
from sqlalchemy.exc import IntegrityError

from mailgate.journal import database as databases
from mailgate.journal.arrivals import BucketKey, NewParked
from mailgate.model.ids import Ids
from mailgate.model.message import Attachment
from mailgate.model.state import Lane
from mailgate.model.value import replace
from tests.contract.journal.rig import BUCKET, Rig, arrival


def test_a_batch_is_written_whole(journal: Rig) -> None:
    bulk = BucketKey(Lane.BULK, "news", ("first",))
    file = Attachment("a.pdf", "application/pdf", b"\x00\xff", "cid1")
    stored = journal.store(
        arrival("one", "a@example.org", "b@example.org", attachments=(file,)),
        arrival("two", bucket=bulk, tags='["x"]', template="welcome", sensitive=True),
    )

    assert (stored.accepted, stored.repeated, stored.conflicts, stored.parked) == (2, 0, 0, 0)
    assert stored.lanes == {Lane.NORMAL, Lane.BULK}
    rows = journal.all("SELECT * FROM recipients ORDER BY id")
    assert [(r.message_id, r.n, r.email) for r in rows] == [
        (stored.ids[0], 0, "a@example.org"),
        (stored.ids[0], 1, "b@example.org"),
        (stored.ids[1], 0, "two@example.org"),
    ]
    assert {(r.state, r.token, r.claims, r.attempts, r.seq) for r in rows} == {
        ("queued", 0, 0, 0, 1)
    }
    kept = journal.one("SELECT * FROM attachments")
    assert (kept.message_id, bytes(kept.content)) == (stored.ids[0], b"\x00\xff")
    events = journal.all("SELECT message_id, seq, kind FROM events ORDER BY message_id")
    assert [tuple(e) for e in events] == [(id_, 0, "accepted") for id_ in stored.ids]


def test_text_of_every_kind_comes_back_as_it_was(journal: Rig) -> None:
    """What goes to the database as one JSON text must not be read as anything else."""
    texts = [
        '{"a": [1]}',
        "[1, 2]",
        "null",
        "true",
        "007",
        "1e3",
        "'\"\\",
        "ünï ✉ 🦊",
        "%s :x $1",
        "",
    ]
    recipients = arrival("all").recipients
    journal.store(
        *(
            replace(arrival(f"t{n}"), recipients=(replace(recipients[0], name=text),))
            for n, text in enumerate(texts)
        )
    )
    assert [r.name for r in journal.all("SELECT name FROM recipients ORDER BY id")] == texts


def test_a_batch_too_large_for_one_statement_is_written_whole(
    journal: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL reads no JSON above 256 MB: seventy letters of 4 MB could never be written."""
    monkeypatch.setattr(databases, "MOST_PACKED", 2000)
    batch = [arrival(f"m{n}", body=json.dumps({"text": "x" * 500})) for n in range(20)]
    stored = journal.store(*batch, batch[3], arrival("huge", body="y" * 5000))
    assert (stored.accepted, stored.repeated) == (21, 1)
    assert [r.id for r in journal.all("SELECT id FROM messages ORDER BY id")] == sorted(
        set(stored.ids)
    )
    assert journal.count("recipients") == journal.count("events") == 21


@pytest.mark.parametrize("most", [1, 7, 10_000])
def test_rows_are_cut_into_texts_that_fit(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(databases, "MOST_PACKED", most)
    rows = [(n, "x" * n) for n in range(30)]
    texts = list(databases.packs(rows))
    assert [tuple(r) for text in texts for r in json.loads(text)] == rows
    assert len(texts) == (1 if most == 10_000 else 30)


def test_a_repeat_is_absorbed(journal: Rig) -> None:
    first = journal.store(arrival("one"))
    again = journal.store(arrival("one"), arrival("two"))
    assert (again.accepted, again.repeated, again.conflicts) == (1, 1, 0)
    assert again.ids[0] == first.ids[0]
    assert journal.count("messages") == 2
    assert journal.count("recipients") == 2
    assert journal.count("parked") == 0


def test_one_identity_twice_in_a_batch_is_one_row(journal: Rig) -> None:
    stored = journal.store(arrival("one"), arrival("one"), arrival("one", body_hash="other"))
    assert (stored.accepted, stored.repeated, stored.conflicts, stored.parked) == (1, 1, 1, 1)
    assert len(set(stored.ids)) == 1
    assert journal.count("recipients") == 1


def test_one_identity_of_two_producers_is_two_messages(journal: Rig) -> None:
    other = replace(BUCKET, producer="other")
    stored = journal.store(arrival("one"), arrival("one", bucket=other))
    assert (stored.accepted, journal.count("messages")) == (2, 2)


def test_a_conflict_is_parked_once_and_seen(journal: Rig) -> None:
    first = journal.store(arrival("one"))
    for _ in range(3):
        stored = journal.store(arrival("one", body_hash="other", raw=b"the other body"))
        assert (stored.accepted, stored.conflicts) == (0, 1)
        assert stored.ids == first.ids
    parked = journal.one("SELECT * FROM parked")
    assert (parked.kind, parked.message_id, parked.state) == ("conflict", first.ids[0], "parked")
    assert bytes(parked.body) == b"the other body"
    assert json.loads(parked.faults)[0]["field"] == "idempotency_key"
    events = journal.all("SELECT kind FROM events ORDER BY id")
    assert [e.kind for e in events] == ["accepted", "conflict"]
    # A third body is another conflict.
    journal.store(arrival("one", body_hash="third"))
    assert journal.count("parked") == 2


def test_what_is_parked_is_parked_once(journal: Rig) -> None:
    bad = NewParked("test:1", "test", "invalid", '[{"field": "to"}]', b"\x00raw", "shop")
    assert journal.store(refused=[bad]).parked == 1
    assert journal.store(refused=[bad, bad]).parked == 0
    row = journal.one("SELECT * FROM parked")
    assert (row.state, bytes(row.body), row.message_id) == ("parked", b"\x00raw", None)


def test_refused_recipients_are_parked_with_their_message_once(journal: Rig) -> None:
    left_out = NewParked("left-out:1", "test", "recipient", "[]", b"{}", "shop")
    stored = journal.store(arrival("one", refused=(left_out,)))
    assert stored.parked == 1
    assert journal.one("SELECT message_id FROM parked").message_id == stored.ids[0]
    assert journal.store(arrival("one", refused=(left_out,))).parked == 0


def test_send_at_is_due_then_and_rings_nothing(journal: Rig) -> None:
    later = journal.database.now() + 3_600_000
    stored = journal.store(arrival("later", send_at=later, expires_at=later + 1))
    assert stored.lanes == set()
    row = journal.one("SELECT due_at, expires_at FROM recipients")
    assert (row.due_at, row.expires_at) == (later, later + 1)
    assert journal.heads() == []
    assert [h.email for h in journal.heads(ahead=3_600_001)] == ["later@example.org"]


def test_a_streams_lifetime_counts_from_the_moment_it_may_be_sent(journal: Rig) -> None:
    later = journal.database.now() + 3_600_000
    journal.store(
        arrival("a", lifetime=1000),
        arrival("b", lifetime=1000, send_at=later),
        arrival("c", lifetime=1000, send_at=later, expires_at=5),
        arrival("d"),
    )
    a, b, c, d = journal.all(
        "SELECT r.expires_at, m.expires_at AS whole, m.accepted_at FROM recipients r"
        " JOIN messages m ON m.id = r.message_id ORDER BY r.id"
    )
    assert a.expires_at == a.accepted_at + 1000
    assert [x.expires_at for x in (b, c, d)] == [later + 1000, 5, None]
    assert all(x.expires_at == x.whole for x in (a, b, c, d))


# --- deliveries without any identity -------------------------------------------


def anonymous(nonce: str, session: int, *, redelivered: bool, body: str = "same") -> object:
    return arrival(
        body,
        identity=f"none:{nonce}",
        session=session,
        redelivered=redelivered,
    )


def test_redelivered_to_session_after_session_is_one_row(journal: Rig) -> None:
    """Each session commits and dies before its acknowledgement."""
    first = journal.store(anonymous("a", 1, redelivered=False))
    assert first.unacked == first.ids
    for session in (2, 3, 4):
        again = journal.store(anonymous(f"s{session}", session, redelivered=True))
        assert (again.accepted, again.repeated, again.ids) == (0, 1, first.ids)
        # It is still not acknowledged: the last session must be able to forget it.
        assert again.unacked == first.ids
    assert journal.count("recipients") == 1


@pytest.mark.parametrize("together", [True, False])
def test_two_equal_messages_both_redelivered_stay_two(journal: Rig, together: bool) -> None:
    journal.store(anonymous("a", 1, redelivered=False), anonymous("b", 1, redelivered=False))
    for session in (2, 3):
        pair = [anonymous(f"{x}{session}", session, redelivered=True) for x in "ab"]
        batches = [pair] if together else [[p] for p in pair]
        found = [id_ for batch in batches for id_ in journal.store(*batch).ids]
        assert len(set(found)) == 2
    assert journal.count("messages") == 2


def test_redelivered_and_never_committed_is_new(journal: Rig) -> None:
    journal.store(anonymous("a", 1, redelivered=False))
    stored = journal.store(
        anonymous("b", 2, redelivered=True),
        anonymous("c", 2, redelivered=True),
        anonymous("d", 2, redelivered=True, body="another"),
    )
    assert (stored.accepted, stored.repeated) == (2, 1)
    assert journal.count("messages") == 3


def test_an_equal_message_that_is_not_redelivered_is_new(journal: Rig) -> None:
    journal.store(anonymous("a", 1, redelivered=False))
    assert journal.store(anonymous("b", 2, redelivered=False)).accepted == 1


def test_what_is_forgotten_is_not_found_again(journal: Rig) -> None:
    first = journal.store(anonymous("a", 1, redelivered=False))
    assert journal.store(forget=first.unacked).ids == []
    assert journal.store(anonymous("b", 2, redelivered=True)).accepted == 1


def test_a_batch_tried_again_finds_what_its_first_try_wrote(journal: Rig) -> None:
    """The reply to COMMIT was lost: the same batch comes again, from the same session."""
    batch = [anonymous("a", 1, redelivered=False), anonymous("b", 1, redelivered=False)]
    first = journal.store(*batch)
    again = journal.store(*batch)
    assert (again.accepted, again.ids) == (0, first.ids)
    # All the more for what was redelivered: its first try may have found a row.
    redelivered = [anonymous("c", 2, redelivered=True)]
    found = journal.store(*redelivered)
    assert journal.store(*redelivered).ids == found.ids
    assert journal.count("messages") == 2


# --- several processes -----------------------------------------------------------


def test_colliding_ids_are_drawn_again(
    processes: Callable[[], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = processes(), processes()
    now = one.database.now()
    for rig in (one, two):
        monkeypatch.setattr(rig.database, "now", lambda: now)
        rig.ids = Ids(lambda: 0.5)
        rig.arrivals._ids = rig.ids
    one.add(50, "one-")
    two.add(30, "two-")
    assert one.count("recipients") == 80
    assert one.count("events") == 80


def test_processes_write_the_same_batch_at_once_and_it_stands_once(
    processes: Callable[[], Rig],
) -> None:
    """Each delivery came to four processes, in another order to each; keys are new buckets too."""
    rigs = [processes() for _ in range(4)]
    buckets = [BucketKey(Lane.NORMAL, f"p{n % 3}", ("first",)) for n in range(60)]
    start = Barrier(len(rigs))
    stored = []

    def write(rig: Rig, step: int) -> None:
        order = [(n * step) % 61 - 1 for n in range(1, 61)]
        start.wait()
        for at in range(0, 60, 20):
            batch = [arrival(f"m{n}", bucket=buckets[n]) for n in order[at : at + 20]]
            stored.append(rig.store(*batch))

    threads = [
        Thread(target=write, args=(rig, step))
        for rig, step in zip(rigs, (1, 7, 13, 60), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(s.accepted for s in stored) == 60
    assert sum(s.repeated for s in stored) == 180
    assert rigs[0].count("recipients") == 60
    assert rigs[0].count("buckets") == 3


def test_a_duplicate_key_that_stays_is_an_error(journal: Rig) -> None:
    """Drawing again is for ids; it must not hide another fault."""
    journal.ids.take = lambda now: 5  # type: ignore[method-assign]
    with pytest.raises(IntegrityError):
        journal.store(arrival("one"), arrival("two"))
    assert journal.count("messages") == 0
