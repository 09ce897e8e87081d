"""Conversations and connections at once: never more than there may be, over all workers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mailgate.journal import connections, leases
from mailgate.journal.queue import Candidate, Head
from mailgate.limits.policy import Cap
from mailgate.model.message import Claim
from mailgate.model.state import State
from tests.contract.journal.rig import Rig, settlement

TWO = (Cap("domain:example.org", 2),)


def claim(rig: Rig, lease: int, heads: list[Head], caps: tuple[Cap, ...] = TWO) -> list[Claim]:
    candidates = [Candidate(h, "first", caps=caps) for h in heads]
    turn = rig.database.run_now(
        lambda c: rig.queue.turn(c, lease=lease, settlements=(), candidates=candidates)
    )
    return turn.claims


def test_no_more_conversations_than_there_may_be(journal: Rig) -> None:
    journal.add(5)
    lease = journal.lease()
    assert len(claim(journal, lease, journal.heads())) == 2
    assert claim(journal, lease, journal.heads()) == []
    # Another destination has places of its own.
    other = (Cap("domain:example.com", 1), Cap("relay:first domain:example.com", 9))
    assert len(claim(journal, lease, journal.heads(), other)) == 1


@pytest.mark.parametrize("end", [State.SENT, State.DEFERRED, State.QUEUED])
def test_whatever_ends_a_claim_frees_its_place(journal: Rig, end: State) -> None:
    journal.add(5)
    lease = journal.lease()
    first, second = claim(journal, lease, journal.heads())
    later = journal.database.now() + 3_600_000
    journal.settle(settlement(first, end, due_at=later))
    [third] = claim(journal, lease, journal.heads())
    assert third.recipient_id not in (first.recipient_id, second.recipient_id)
    journal.settle(settlement(second, end, due_at=later), settlement(third, end, due_at=later))
    assert len(claim(journal, lease, journal.heads())) == 2
    # What counts for nothing any more is swept away.
    assert journal.count("places") == 2


def test_one_that_was_claimed_again_is_counted_once(journal: Rig) -> None:
    journal.add(1)
    lease = journal.lease()
    for _ in range(4):
        [one] = claim(journal, lease, journal.heads())
        journal.settle(settlement(one, State.QUEUED))
    assert len(claim(journal, lease, journal.heads())) == 1
    assert journal.count("places") == 1


def test_workers_that_take_at_once_never_take_more(
    journal: Rig, processes: Callable[[], Rig]
) -> None:
    journal.add(60)
    rigs = [processes() for _ in range(4)]
    seen = []

    def work(place: int) -> int:
        rig, taken = rigs[place], 0
        lease = rig.lease()
        for _ in range(15):
            claims = claim(rig, lease, rig.heads(4, of=4, place=place))
            seen.append(rig.count("recipients", "state = 'sending'"))
            rig.settle(*(settlement(c, State.SENT) for c in claims))
            taken += len(claims)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = sum(pool.map(work, range(4)))
    assert taken > 4
    assert max(seen) == 2


def taken(rig: Rig, lease: int, have: int, most: int = 3, relay: str = "main") -> bool:
    return rig.database.run_now(lambda c: connections.take(c, lease, relay, have, most))


def test_connections_are_counted_over_processes(journal: Rig) -> None:
    one, two = journal.lease(), journal.lease()
    assert [taken(journal, one, 0), taken(journal, one, 1)] == [True, True]
    assert [taken(journal, two, 0), taken(journal, two, 1)] == [True, False]
    assert taken(journal, two, 1, relay="other")
    journal.database.run_now(lambda c: connections.write(c, one, "main", 1))
    assert [taken(journal, two, 1), taken(journal, one, 1)] == [True, False]


def test_the_dead_hold_no_connections_and_open_none(journal: Rig) -> None:
    dead, alive = journal.lease(), journal.lease()
    assert all(taken(journal, dead, have) for have in range(3))
    assert not taken(journal, alive, 0)
    journal.database.run_now(lambda c: leases.remove(c, [dead]))
    assert not taken(journal, dead, 0)
    assert all(taken(journal, alive, have) for have in range(3))
    assert journal.count("connections") == 1


def test_processes_that_open_at_once_never_have_more(
    journal: Rig, processes: Callable[[], Rig]
) -> None:
    rigs = [processes() for _ in range(4)]

    def work(rig: Rig) -> Any:
        lease, have = rig.lease(), 0
        for _ in range(5):
            have += taken(rig, lease, have, 7)
        return have

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, rigs)) == 7
