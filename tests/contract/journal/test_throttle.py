"""How often one recipient is written to: exact however many workers claim."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from mailgate.journal.facts import hmac_key
from mailgate.journal.surgery import Act, Surgery
from mailgate.journal.throttle import Charge
from mailgate.model.state import State
from mailgate.model.value import replace
from tests.contract.journal.rig import Rig, arrival, attempt, settlement

HOUR = 3_600_000


def to_one_address(journal: Rig, count: int, prefix: str = "m") -> None:
    journal.store(*(arrival(f"{prefix}{n}", "ann@example.org") for n in range(count)))


def test_eight_workers_never_exceed_a_window(processes: Callable[[], Rig]) -> None:
    """Each takes a few at a time of mail to one recipient, all at once."""
    workers = 8
    rigs = [processes() for _ in range(workers)]
    to_one_address(rigs[0], 80)
    start = Barrier(workers)
    charges = [Charge("day", 9, 24 * HOUR, "defer"), Charge("hour", 5, HOUR, "defer")]

    def work(rig: Rig) -> int:
        lease = rig.lease()
        start.wait()
        claimed = 0
        while heads := rig.heads(7):
            claimed += len(rig.turn(lease, heads, charges=charges).claims)
        return claimed

    with ThreadPoolExecutor(workers) as pool:
        assert sum(pool.map(work, rigs)) == 5
    journal = rigs[0]
    assert journal.count("throttle_hits") == 10
    waiting = journal.all("SELECT * FROM recipients WHERE state = 'queued'")
    now = journal.database.now()
    assert len(waiting) == 75
    assert all(r.due_at > now + HOUR - 60_000 for r in waiting)
    assert {(r.attempts, r.claims, r.charged) for r in waiting} == {(0, 0, False)}


def test_whatever_the_interleaving_no_window_holds_more_than_its_limit(
    processes: Callable[[], Rig],
) -> None:
    """Four workers in real time, each late in its own way, some claims tried again."""
    rigs = [processes() for _ in range(4)]
    to_one_address(rigs[0], 12)
    charges = [
        Charge("one", 2, 150, "defer"),
        Charge("one", 1, 20, "defer"),
        Charge("two", 5, 400, "defer"),
    ]
    over = time.monotonic() + 20

    def work(numbered: tuple[int, Rig]) -> int:
        n, rig = numbered
        mine, lease, claimed = random.Random(n), rig.lease(), 0
        while time.monotonic() < over and rig.count("recipients", "state <> 'sent'"):
            heads = rig.heads(3)
            time.sleep(mine.random() * 0.01)
            fresh = [h for h in heads if not h.charged]
            claims = rig.turn(lease, fresh, charges=charges).claims
            claimed += len(claims)
            claims += rig.turn(lease, [h for h in heads if h.charged]).claims
            for claim in claims:
                again = claim.attempts == 0 and mine.random() < 0.5
                state = State.DEFERRED if again else State.SENT
                rig.settle(settlement(claim, state, attempt=attempt()))
        return claimed

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, enumerate(rigs))) == 12
    hits = rigs[0].all("SELECT key, at FROM throttle_hits ORDER BY at")
    assert len(hits) == 24
    for charge in charges:
        times = [h.at for h in hits if h.key == charge.key]
        for end in times:
            assert sum(end - charge.window < t <= end for t in times) <= charge.limit


def test_who_waits_is_told_and_goes_later(journal: Rig) -> None:
    to_one_address(journal, 2)
    charge = Charge("k", 1, 60_000, "defer")
    turn = journal.turn(journal.lease(), journal.heads(), charges=[charge])
    assert (len(turn.claims), [dropped for _, dropped in turn.waiting]) == (1, [False])
    [(id_, _)] = turn.waiting
    row = journal.row(id_)
    assert (row.state, row.error_class, row.seq) == ("queued", "throttled", 2)
    assert journal.events(id_) == [(2, "queued")]
    [head] = journal.heads(ahead=60_001)
    assert head.id == id_


def test_a_drop_is_final_and_told(journal: Rig) -> None:
    to_one_address(journal, 3)
    charge = Charge("k", 1, 60_000, "drop")
    turn = journal.turn(journal.lease(), journal.heads(), charges=[charge])
    assert [dropped for _, dropped in turn.waiting] == [True, True]
    for id_, _ in turn.waiting:
        assert journal.row(id_).state == State.THROTTLED
        assert journal.events(id_) == [(2, "throttled")]
    assert journal.heads(ahead=10**9) == []


def test_a_recipient_is_charged_once_however_often_it_is_tried(journal: Rig) -> None:
    to_one_address(journal, 1)
    charge = Charge("k", 1, 60_000, "drop")
    lease = journal.lease()
    assert not journal.heads()[0].charged
    [claim] = journal.turn(lease, journal.heads(), charges=[charge]).claims
    for _ in range(3):
        journal.settle(settlement(claim, State.DEFERRED, attempt=attempt()))
        [head] = journal.heads()
        assert head.charged  # so the taker asks for no charges again
        [claim] = journal.turn(lease, [head]).claims
    assert journal.count("throttle_hits") == 1


def test_a_resend_is_charged_no_second_time(journal: Rig) -> None:
    to_one_address(journal, 1)
    charge = Charge("k", 1, 60_000, "drop")
    [claim] = journal.turn(journal.lease(), journal.heads(), charges=[charge]).claims
    journal.settle(settlement(claim, State.BOUNCED, attempt=attempt("bounce")))
    act = Act("ann", "resend", "mended")
    surgery = Surgery(journal.database)
    journal.database.run_now(lambda c: surgery.move(c, [claim.recipient_id], State.QUEUED, act))
    [head] = journal.heads()
    assert head.charged


def test_what_could_not_be_claimed_is_not_charged(processes: Callable[[], Rig]) -> None:
    one, two = processes(), processes()
    to_one_address(one, 1)
    heads = one.heads()
    one.turn(one.lease(), heads)
    two.turn(two.lease(), heads, charges=[Charge("k", 5, 60_000, "defer")])
    assert one.count("throttle_hits") == 0


def test_windows_do_not_touch_each_other(journal: Rig) -> None:
    to_one_address(journal, 4)
    lease = journal.lease()
    heads = journal.heads()
    for n, key in enumerate("abab"):
        turn = journal.turn(lease, [heads[n]], charges=[Charge(key, 1, 60_000, "defer")])
        assert len(turn.claims) == (1 if n < 2 else 0)


def test_all_processes_share_one_secret(processes: Callable[[], Rig]) -> None:
    rigs = [processes() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda r: r.database.run_now(hmac_key), rigs))
    assert len(made) == 1
    assert len(made.pop()) == 32


def test_a_window_begins_when_the_mail_has_reached_the_relay(journal: Rig) -> None:
    """What is on its way does not age, however long it takes; then it counts from its end."""
    to_one_address(journal, 3)
    lease = journal.lease()
    charges = [Charge("k", 1, 300, "defer")]
    [claim] = journal.turn(lease, journal.heads(1), charges=charges).claims
    time.sleep(0.35)
    # Claimed longer ago than the window, and still under way.
    assert journal.turn(lease, journal.heads(2), charges=charges).claims == []
    ended = journal.database.now()
    tried = replace(attempt("sent", code=250), ended_at=ended)
    journal.settle(settlement(claim, State.SENT, attempt=tried))
    heads = journal.heads(2, ahead=1000)
    assert journal.turn(lease, heads, charges=charges).claims == []
    due = journal.one("SELECT min(due_at) AS at FROM recipients WHERE state = 'queued'").at
    assert ended + 300 <= due <= ended + 300 + 50
    time.sleep(0.35)
    assert len(journal.turn(lease, journal.heads(2), charges=charges).claims) == 1


def test_mail_that_was_given_back_untouched_is_still_on_its_way(journal: Rig) -> None:
    to_one_address(journal, 2)
    lease = journal.lease()
    charges = [Charge("k", 1, 200, "defer")]
    [claim] = journal.turn(lease, journal.heads(1), charges=charges).claims
    journal.settle(settlement(claim, State.QUEUED, due_at=journal.database.now()))
    time.sleep(0.25)
    other = [h for h in journal.heads() if h.id != claim.recipient_id]
    assert journal.turn(lease, other, charges=charges).claims == []
    # Itself it has been charged: it may go at once.
    mine = [h for h in journal.heads() if h.id == claim.recipient_id]
    assert len(journal.turn(lease, mine).claims) == 1
