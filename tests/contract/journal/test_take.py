"""Looking at what is due, and claiming it: each recipient by one worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from mailgate.journal import leases
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.queue import Candidate
from mailgate.journal.throttle import Charge
from mailgate.model.address import Address
from mailgate.model.message import Attachment
from mailgate.model.state import Lane, State
from tests.contract.journal.rig import BUCKET, Rig, arrival, attempt, settlement


def test_what_was_accepted_can_be_claimed_and_sent(journal: Rig) -> None:
    file = Attachment("a.pdf", "application/pdf", b"\x00pdf")
    journal.store(
        arrival(
            "one",
            "ann@example.org",
            attachments=(file,),
            own='{"data": {"name": "Ann"}, "locale": "pt-BR"}',
            sensitive=True,
        )
    )
    [claim] = journal.claim(journal.lease())
    assert (claim.token, claim.claims, claim.attempts) == (1, 1, 0)
    assert (claim.relay, claim.lane, claim.producer) == ("first", Lane.NORMAL, "shop")
    assert claim.address == Address("ann@example.org", "")
    assert claim.sensitive is True
    letter = claim.letter
    assert letter.to == (claim.address,)
    assert letter.data == {"secret": "s3cret", "name": "Ann"}
    assert letter.locale == "pt-BR"
    assert letter.attachments == (file,)
    assert letter.message_id.endswith("@example.com>")
    row = journal.row(claim.recipient_id)
    assert (row.state, row.token, row.seq) == ("sending", 1, 2)


def test_a_shared_mail_is_one_letter_for_all(journal: Rig) -> None:
    journal.store(arrival("one", "a@example.org", "b@example.org", kind="to"))
    first, second = journal.claim(journal.lease())
    assert first.letter == second.letter


def test_private_mails_are_letters_of_their_own(journal: Rig) -> None:
    journal.store(arrival("one", "a@example.org", "b@example.org"))
    first, second = journal.claim(journal.lease())
    assert first.letter.message_id != second.letter.message_id
    assert first.letter.to != second.letter.to


def test_a_claimed_row_is_not_due_and_not_claimed_again(journal: Rig) -> None:
    journal.add(3)
    heads = journal.heads()
    lease = journal.lease()
    assert len(journal.turn(lease, heads).claims) == 3
    assert journal.heads() == []
    assert journal.turn(lease, heads).claims == []


def test_a_row_that_was_claimed_and_put_back_meanwhile_is_not_claimed_on_an_old_look(
    journal: Rig,
) -> None:
    """Another worker had it and moved it to its next relay: what we know of it is over."""
    [id_] = journal.add(1)
    old = journal.heads()
    other = journal.lease()
    [claim] = journal.claim(other)
    moved = BucketKey(BUCKET.lane, BUCKET.producer, ("second", "first"))
    journal.settle(settlement(claim, State.DEFERRED, due_at=0, attempt=attempt(), bucket=moved))
    charge = Charge("k", 1, 60_000, "drop")
    assert journal.turn(journal.lease(), old, charges=[charge]).claims == []
    assert journal.count("throttle_hits") == 0
    [head] = journal.heads()
    assert (head.bucket.key.route, head.charged) == (("second", "first"), True)
    assert journal.row(id_).state == "deferred"


def test_an_old_look_neither_drops_nor_delays_nor_expires_a_row(journal: Rig) -> None:
    charge = Charge("k", 1, 60_000, "drop")
    ids = journal.add(2)
    old = journal.heads()
    [a, b] = journal.claim(journal.lease())
    journal.settle(
        settlement(a, State.DEFERRED, attempt=attempt()),
        settlement(b, State.DEFERRED, attempt=attempt()),
    )
    journal.sql(
        "INSERT INTO throttle_hits (key, at, recipient_id) VALUES ('k', :at, 1)",
        at=journal.database.now(),
    )
    turn = journal.turn(journal.lease(), old[:1], charges=[charge], expired=old[1:])
    assert (turn.claims, turn.waiting, turn.expired) == ([], [], 0)
    assert [journal.row(i).state for i in ids] == ["deferred", "deferred"]


def test_what_is_due_later_is_not_taken_yet(journal: Rig) -> None:
    later = journal.database.now() + 60_000
    journal.add(1, "now")
    journal.add(1, "later", send_at=later)
    [claim] = journal.claim(journal.lease())
    assert claim.address.email == "now0@example.org"
    # Nor by somebody whose clock said that it was due.
    [head] = journal.heads(ahead=60_001)
    assert journal.turn(journal.lease(), [head]).claims == []


def test_heads_are_the_longest_due(journal: Rig) -> None:
    now = journal.database.now()
    for n, ago in enumerate((5, 1, 9)):
        journal.add(1, f"x{n}-", send_at=now - ago * 1000)
    assert [h.email[:2] for h in journal.heads(2)] == ["x2", "x0"]


def test_a_head_knows_its_sender_and_its_destination(journal: Rig) -> None:
    journal.add(1, sender="news@example.net")
    [head] = journal.heads()
    assert (head.sender, head.domain) == ("news@example.net", "example.org")


def test_a_closed_bucket_is_passed_over(journal: Rig) -> None:
    journal.add(1, "a")
    journal.add(1, "b", bucket=BucketKey(Lane.HIGH, "shop", ("first",)))
    journal.sql(
        "UPDATE buckets SET open_at = :t WHERE lane = 'high'", t=journal.database.now() + 9999
    )
    assert [h.email[0] for h in journal.heads()] == ["a"]
    assert journal.database.read_now(
        lambda c: journal.queue.next_due(c, journal.database.now())
    ) == {Lane.NORMAL}


def test_workers_prefer_their_own_residue_and_take_the_others_when_short(journal: Rig) -> None:
    ids = journal.add(40)
    for place in range(3):
        heads = [h.id for h in journal.heads(10, of=3, place=place)]
        own = [i for i in ids if i % 3 == place]
        assert heads == own[:10]
        everything = [h.id for h in journal.heads(100, of=3, place=place)]
        assert sorted(everything) == sorted(ids)
        assert everything[: len(own)] == own


def test_without_a_lease_nothing_is_claimed(journal: Rig) -> None:
    journal.add(2)
    lease = journal.lease()
    journal.database.run_now(lambda c: leases.remove(c, [lease]))
    assert journal.claim(lease) == []
    assert journal.claim(12345) == []
    assert len(journal.heads()) == 2


def test_expired_rows_end_and_leave_an_event(journal: Rig) -> None:
    [id_] = journal.add(1, expires_at=1)
    turn = journal.turn(journal.lease(), expired=journal.heads())
    assert turn.expired == 1
    row = journal.row(id_)
    assert (row.state, row.seq, row.error_class) == ("expired", 2, "expired")
    assert journal.events(id_) == [(2, "expired")]


@pytest.mark.parametrize("workers", [4])
def test_many_workers_claim_the_same_heads_and_each_row_goes_once(
    processes: Callable[[], Rig], workers: int
) -> None:
    """All look first, then all claim at once, until nothing is left."""
    rigs = [processes() for _ in range(workers)]
    ids = rigs[0].add(240)
    start = Barrier(workers)

    def work(rig: Rig) -> list[int]:
        lease = rig.lease()
        mine: list[int] = []
        start.wait()
        while heads := rig.heads(50):
            mine += [c.recipient_id for c in rig.turn(lease, heads).claims]
        return mine

    with ThreadPoolExecutor(workers) as pool:
        claimed = Counter(id_ for got in pool.map(work, rigs) for id_ in got)
    assert claimed == Counter(ids)
    assert {(r.claims, r.token) for r in rigs[0].all("SELECT claims, token FROM recipients")} == {
        (1, 1)
    }


def test_settling_and_claiming_at_once_repeats_no_attempt(processes: Callable[[], Rig]) -> None:
    """Workers defer to "now" and claim again what others deferred; the books agree at the end."""
    rigs = [processes() for _ in range(4)]
    ids = rigs[0].add(30)
    start = Barrier(len(rigs))

    def work(rig: Rig) -> int:
        lease = rig.lease()
        start.wait()
        done, ended = 0, []
        for _ in range(12):
            turn = rig.turn(lease, rig.heads(10), ended)
            done += len(turn.settled)
            assert len(turn.settled) == len(ended)
            ended = [
                settlement(c, State.DEFERRED, attempt=attempt(), due_at=0) for c in turn.claims
            ]
        return done + len(rig.settle(*ended))

    with ThreadPoolExecutor(len(rigs)) as pool:
        settled = sum(pool.map(work, rigs))
    rows = rigs[0].all("SELECT * FROM recipients")
    assert sum(r.attempts for r in rows) == settled == rigs[0].count("attempts")
    for row in rows:
        assert (row.state, row.attempts, row.token) in (
            ("deferred", row.claims, row.claims),
            ("queued", 0, 0),
        )
    numbers = Counter(
        (r.recipient_id, r.n) for r in rigs[0].all("SELECT recipient_id, n FROM attempts")
    )
    assert set(numbers.values()) <= {1}
    assert len(ids) == len(rows)


# --- PostgreSQL alone: what SKIP LOCKED and the lease's lock are for ----------------


def _holding(rig: Rig, work: Callable[[sa.Connection], Any]) -> tuple[Thread, Event, Event]:
    """Does ``work`` in a transaction that stays open until the second event is set."""
    done, end = Event(), Event()

    def transaction(c: sa.Connection) -> None:
        work(c)
        done.set()
        assert end.wait(20)

    thread = Thread(target=rig.database.run_now, args=(transaction,))
    thread.start()
    assert done.wait(20)
    return thread, done, end


def test_a_claim_does_not_wait_for_another_claim(
    migrated_postgres_url: str, rigs_of: Callable[[str], Rig]
) -> None:
    one, two = rigs_of(migrated_postgres_url), rigs_of(migrated_postgres_url)
    ids = one.add(10)
    heads = one.heads()
    lease, other = one.lease(), two.lease()
    candidates = [Candidate(h, "first") for h in heads[:6]]
    thread, _, end = _holding(
        one,
        lambda c: one.queue.turn(c, lease=lease, settlements=(), candidates=candidates),
    )
    try:
        claims = two.turn(other, heads).claims
    finally:
        end.set()
        thread.join()
    assert [c.recipient_id for c in claims] == ids[6:]


def test_a_lease_is_not_removed_under_a_claim_that_is_about_to_commit(
    migrated_postgres_url: str, rigs_of: Callable[[str], Rig]
) -> None:
    one, two = rigs_of(migrated_postgres_url), rigs_of(migrated_postgres_url)
    one.add(1)
    lease = one.lease()
    candidates = [Candidate(h, "first") for h in one.heads()]
    thread, _, end = _holding(
        one, lambda c: one.queue.turn(c, lease=lease, settlements=(), candidates=candidates)
    )
    burial = Thread(target=two.database.run_now, args=(lambda c: leases.remove(c, [lease]),))
    burial.start()
    burial.join(0.3)
    assert burial.is_alive(), "the burial did not wait for the claim"
    end.set()
    thread.join()
    burial.join(20)
    assert one.count("leases") == 1
    assert one.database.read_now(leases.unclaimed) == []
