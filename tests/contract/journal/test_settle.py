"""Outcomes are written by the claim's token, whole, and each on a path that the table knows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from threading import Event, Thread

import pytest
import sqlalchemy as sa

from mailgate.config.streams import Stream
from mailgate.delivery.recovery import judge
from mailgate.delivery.spool import Mark
from mailgate.journal import leases
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.settling import Settlement
from mailgate.journal.throttle import Charge
from mailgate.model.message import Attachment
from mailgate.model.state import TRANSITIONS, State, allowed
from tests.contract.journal.rig import BUCKET, Rig, arrival, attempt, settlement

PATHS = [
    (first, *rest)
    for first in sorted(TRANSITIONS[State.SENDING])
    for rest in [(), *((t,) for t in sorted(TRANSITIONS[first]) if first is State.UNCERTAIN)]
]


@pytest.mark.parametrize("path", PATHS, ids="-".join)
def test_each_way_out_of_sending_is_written(journal: Rig, path: tuple[State, ...]) -> None:
    [id_] = journal.add(1)
    [claim] = journal.claim(journal.lease())
    written = journal.settle(
        settlement(claim, *path, due_at=77, attempt=attempt(), error_class="greylisted", note="n")
    )
    assert written == {id_}
    row = journal.row(id_)
    assert (row.state, row.due_at, row.attempts, row.lease_id) == (path[-1], 77, 1, None)
    assert (row.token, row.seq, row.error_class) == (claim.token, 2 + len(path), "greylisted")
    # One event a transition, numbered on: 1 is the arrival, 2 the claim.
    assert journal.events(id_) == [(3 + n, state) for n, state in enumerate(path)]
    detail = json.loads(journal.one("SELECT detail FROM events WHERE seq = 3").detail)
    assert (detail["attempt"], detail["relay"], detail["code"], detail["note"]) == (
        1,
        "first",
        451,
        "n",
    )
    kept = journal.one("SELECT * FROM attempts")
    assert (kept.recipient_id, kept.n, kept.reply, kept.code) == (id_, 1, "try again", 451)


@pytest.mark.parametrize(
    "path",
    [
        (target,) if not allowed(State.SENDING, target) else (target, second)
        for target, second in itertools.product(State, State)
        if not (allowed(State.SENDING, target) and allowed(target, second))
    ],
    ids="-".join,
)
def test_no_other_way_can_even_be_said(path: tuple[State, ...]) -> None:
    with pytest.raises(ValueError, match="no recipient goes from"):
        Settlement(1, 1, 1, path, 0)


def test_a_stale_token_writes_nothing(journal: Rig) -> None:
    """The first claimant comes back after another has claimed the row and is sending."""
    [id_] = journal.add(1)
    [old] = journal.claim(journal.lease())
    journal.settle(settlement(old, State.QUEUED))
    [new] = journal.claim(journal.lease())
    before = journal.row(id_)
    late = settlement(old, State.SENT, attempt=attempt("sent"), stored=b"x", sensitive=True)
    assert journal.settle(late) == set()
    assert journal.row(id_) == before
    assert journal.count("attempts") == journal.count("renderings") == 0
    assert [kind for _, kind in journal.events(id_)] == ["queued"]
    # The same for what is settled already, however right its token.
    assert journal.settle(settlement(new, State.SENT, attempt=attempt("sent"))) == {id_}
    assert journal.settle(settlement(new, State.DEFERRED, attempt=attempt())) == set()
    assert journal.row(id_).state == "sent"


def test_a_batch_settles_what_is_ours_and_leaves_the_rest(journal: Rig) -> None:
    ids = journal.add(4)
    claims = journal.claim(journal.lease())
    wrong = settlement(claims[1], State.SENT, token=claims[1].token + 1)
    good = [settlement(c, State.SENT, attempt=attempt("sent")) for c in (claims[3], claims[0])]
    assert journal.settle(good[0], wrong, good[1]) == {ids[0], ids[3]}
    assert [journal.row(i).state for i in ids] == ["sent", "sending", "sending", "sent"]


def test_waiting_costs_no_attempt(journal: Rig) -> None:
    [id_] = journal.add(1)
    lease = journal.lease()
    for _ in range(3):
        [claim] = journal.claim(lease)
        journal.settle(settlement(claim, State.QUEUED))
    row = journal.row(id_)
    assert (row.attempts, row.claims, row.token) == (0, 3, 3)
    assert journal.count("attempts") == 0


def test_attempts_are_numbered_and_events_follow_the_transitions(journal: Rig) -> None:
    [id_] = journal.add(1)
    lease = journal.lease()
    for path in [
        (State.DEFERRED,),
        (State.QUEUED,),
        (State.UNCERTAIN, State.QUEUED),
        (State.SENT,),
    ]:
        [claim] = journal.claim(lease)
        tried = None if path == (State.QUEUED,) else attempt()
        journal.settle(settlement(claim, *path, attempt=tried))
    assert [r.n for r in journal.all("SELECT n FROM attempts ORDER BY id")] == [1, 2, 3]
    # The numbers left out are the claims, which nobody outside is told of.
    assert journal.events(id_) == [
        (3, "deferred"),
        (5, "queued"),
        (7, "uncertain"),
        (8, "queued"),
        (10, "sent"),
    ]
    assert journal.row(id_).seq == 10


def test_failover_moves_the_row_to_a_bucket_that_is_made_when_new(journal: Rig) -> None:
    journal.add(2)
    one, two = journal.claim(journal.lease())
    there = BucketKey(BUCKET.lane, BUCKET.producer, ("second", "first"))
    journal.settle(
        settlement(one, State.DEFERRED, attempt=attempt(), bucket=there),
        settlement(two, State.DEFERRED, attempt=attempt()),
    )
    routes = {h.id: h.bucket.key.route for h in journal.heads()}
    assert routes == {one.recipient_id: ("second", "first"), two.recipient_id: BUCKET.route}
    again = {c.recipient_id: c.relay for c in journal.claim(journal.lease())}
    assert again == {one.recipient_id: "second", two.recipient_id: "first"}


def test_bytes_are_kept_for_the_next_attempt_and_forgotten_when_sent(journal: Rig) -> None:
    [id_] = journal.add(1)
    lease = journal.lease()
    [claim] = journal.claim(lease)
    assert claim.stored is None
    journal.settle(settlement(claim, State.DEFERRED, attempt=attempt(), stored=b"\x00first\xff"))
    [claim] = journal.claim(lease)
    assert claim.stored == b"\x00first\xff"
    journal.settle(settlement(claim, State.DEFERRED, attempt=attempt()))
    [claim] = journal.claim(lease)
    assert claim.stored == b"\x00first\xff"
    journal.settle(settlement(claim, State.DEFERRED, attempt=attempt(), stored=b"second"))
    [claim] = journal.claim(lease)
    assert claim.stored == b"second"
    journal.settle(settlement(claim, State.SENT, attempt=attempt("sent", code=250)))
    assert journal.count("renderings") == 0
    assert journal.row(id_).state == "sent"


# --- sensitive messages --------------------------------------------------------------

FILE = Attachment("a.txt", "text/plain", b"s3cret")
OWN = json.dumps({"data": {"pin": "s3cret"}})


def secrets(journal: Rig) -> int:
    """Rows in which the secret can still be read."""
    texts = [r.body for r in journal.all("SELECT body FROM messages")]
    texts += [r.own or "" for r in journal.all("SELECT own FROM recipients")]
    blobs = [bytes(r.content) for r in journal.all("SELECT content FROM attachments")]
    blobs += [bytes(r.content) for r in journal.all("SELECT content FROM renderings")]
    return sum("s3cret" in t for t in texts) + sum(b"s3cret" in b for b in blobs)


def sensitive(journal: Rig, *emails: str) -> None:
    journal.store(arrival("one", *emails, sensitive=True, attachments=(FILE,), own=OWN))


def test_a_sensitive_message_is_forgotten_when_the_last_has_it(journal: Rig) -> None:
    sensitive(journal, "a@example.org", "b@example.org")
    lease = journal.lease()
    one, two = journal.claim(lease)
    journal.settle(settlement(one, State.SENT, attempt=attempt("sent")))
    journal.settle(settlement(two, State.DEFERRED, attempt=attempt(), stored=b"s3cret"))
    assert secrets(journal) == 5
    [two] = journal.claim(lease)
    assert two.letter.data == {"secret": "s3cret", "pin": "s3cret"}
    journal.settle(settlement(two, State.SENT, attempt=attempt("sent")))
    assert secrets(journal) == 0
    # What it was, and that it was sent, stays.
    assert journal.one("SELECT body FROM messages").body.count("shop@example.com") > 0
    assert journal.count("attempts") == 3


def test_a_sensitive_message_that_can_be_sent_again_is_kept(journal: Rig) -> None:
    sensitive(journal, "a@example.org", "b@example.org")
    one, two = journal.claim(journal.lease())
    journal.settle(
        settlement(one, State.SENT, attempt=attempt("sent")),
        settlement(two, State.BOUNCED, attempt=attempt("bounce")),
    )
    assert secrets(journal) > 0


def test_another_message_keeps_its_content(journal: Rig) -> None:
    journal.store(arrival("plain"))
    [claim] = journal.claim(journal.lease())
    journal.settle(settlement(claim, State.SENT, attempt=attempt("sent")))
    assert secrets(journal) == 1


def test_the_last_two_settled_at_once_forget_a_sensitive_message(
    processes: Callable[[], Rig],
) -> None:
    """Each transaction sees the other's recipient as still sending."""
    one, two = processes(), processes()
    sensitive(one, "a@example.org", "b@example.org")
    claims = one.claim(one.lease())
    written, over = Event(), Event()

    def settle(rig: Rig, number: int) -> None:
        done = settlement(claims[number], State.SENT, attempt=attempt("sent"))

        def work(c: sa.Connection) -> None:
            rig.queue.settling.write(c, [done], rig.database.now())
            if number == 0:
                written.set()
                over.wait(0.5)  # the other writes meanwhile, or waits for us

        if number == 1:
            assert written.wait(10)
        rig.database.run_now(work)
        over.set()

    threads = [Thread(target=settle, args=(rig, n)) for n, rig in enumerate((one, two))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert one.count("recipients", "state = 'sent'") == 2
    assert secrets(one) == 0


def test_a_sensitive_message_whose_last_recipient_is_dropped_is_forgotten(journal: Rig) -> None:
    sensitive(journal, "a@example.org", "b@example.org")
    lease = journal.lease()
    [one] = journal.claim(lease, 1)
    journal.settle(settlement(one, State.SENT, attempt=attempt("sent")))
    at = journal.database.now()
    journal.sql("INSERT INTO throttle_hits (key, at, recipient_id) VALUES ('k', :at, 1)", at=at)
    turn = journal.turn(lease, journal.heads(), charges=[Charge("k", 1, 60_000, "drop")])
    assert [dropped for _, dropped in turn.waiting] == [True]
    assert secrets(journal) == 0


def test_a_dead_workers_last_sensitive_message_is_forgotten(journal: Rig) -> None:
    """It died after the relay's 250 and before it could write so."""
    sensitive(journal, "a@example.org")
    lease = journal.lease()
    [claim] = journal.claim(lease)
    [orphan] = journal.database.read_now(lambda c: leases.claimed_by(c, lease))
    marks = {(claim.recipient_id, claim.token): Mark.ACCEPTED}
    done = judge(orphan, marks, stream=Stream(), max_deaths=5, now=1, random=lambda: 0.5)
    journal.settle(done)
    assert journal.row(claim.recipient_id).state == "sent"
    assert secrets(journal) == 0


def test_dropping_leaves_what_is_not_sensitive(journal: Rig) -> None:
    journal.store(arrival("plain"))
    at = journal.database.now()
    journal.sql("INSERT INTO throttle_hits (key, at, recipient_id) VALUES ('k', :at, 1)", at=at)
    journal.turn(journal.lease(), journal.heads(), charges=[Charge("k", 1, 60_000, "drop")])
    assert journal.count("recipients", "state = 'throttled'") == 1
    assert secrets(journal) == 1
