"""Who is alive, and what the dead had claimed."""

from __future__ import annotations

import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from mailgate.config.shape import Config
from mailgate.delivery import lease as leases_of_processes
from mailgate.delivery.lease import ProcessLease
from mailgate.delivery.spool import Mark
from mailgate.journal import database as databases
from mailgate.journal import leases
from mailgate.model.ids import Ids
from mailgate.model.state import State
from tests.contract.journal.rig import Rig, arrival, settlement


def test_a_lease_beats_until_it_is_removed(journal: Rig) -> None:
    lease = journal.lease()
    run = journal.database.run_now
    assert run(lambda c: leases.beat(c, lease, 5000))
    assert run(lambda c: leases.living(c, "worker", 5000)) == [lease]
    assert run(lambda c: leases.living(c, "worker", 5001)) == []
    assert run(lambda c: leases.living(c, "intake", 0)) == []
    run(lambda c: leases.remove(c, [lease]))
    assert not run(lambda c: leases.beat(c, lease, 6000))
    assert journal.count("leases") == 0


def test_others_are_all_but_ones_own_with_what_they_wrote(journal: Rig) -> None:
    mine = journal.lease()
    other = journal.lease(host="elsewhere", boot="b2", spool="/spool")
    [found] = journal.database.read_now(lambda c: leases.others(c, mine))
    assert (found.id, found.host, found.boot, found.spool) == (other, "elsewhere", "b2", "/spool")
    assert found.beat_at > 0


def test_a_lease_that_holds_something_is_not_removed(journal: Rig) -> None:
    journal.add(1)
    lease = journal.lease()
    [claim] = journal.claim(lease)
    run = journal.database.run_now
    run(lambda c: leases.remove(c, [lease]))
    assert run(lambda c: leases.beat(c, lease, 1))
    journal.settle(settlement(claim, State.QUEUED))
    run(lambda c: leases.remove(c, [lease]))
    assert not run(lambda c: leases.beat(c, lease, 1))


def test_what_a_process_holds_is_known_with_all_that_a_judge_must_know(journal: Rig) -> None:
    journal.store(arrival("a", sensitive=True), arrival("b"))
    lease, other = journal.lease(), journal.lease()
    [a] = journal.claim(lease, 1)
    [b] = journal.claim(other, 1)
    journal.sql(
        "UPDATE recipients SET suspect = true, deaths = 2 WHERE id = :id", id=a.recipient_id
    )
    [orphan] = journal.database.read_now(lambda c: leases.claimed_by(c, lease))
    assert orphan == leases.Orphan(
        a.recipient_id, a.message_id, a.token, "transactional", True, 2, 0, "first", True
    )
    [orphan] = journal.database.read_now(lambda c: leases.claimed_by(c, other))
    assert (orphan.recipient_id, orphan.suspect, orphan.sensitive) == (b.recipient_id, False, False)


def test_what_nobody_holds_is_found(journal: Rig) -> None:
    journal.add(2)
    lease, other = journal.lease(), journal.lease()
    [a] = journal.claim(lease, 1)
    journal.claim(other, 1)
    assert journal.database.read_now(leases.unclaimed) == []
    journal.sql("DELETE FROM leases WHERE id = :id", id=lease)
    [orphan] = journal.database.read_now(leases.unclaimed)
    assert orphan.recipient_id == a.recipient_id


# --- the lease of a process: burial ------------------------------------------------------

Open = Callable[..., Awaitable[ProcessLease]]


@pytest.fixture
def opened(processes: Callable[[], Rig], tmp_path: Path) -> Iterator[Open]:
    """``opened(rig)`` is a worker process's lease, with a spool of its own."""
    made: list[ProcessLease] = []
    config = Config.model_validate({"state_dir": tmp_path, "worker": {"lease": 4}})

    async def open_(rig: Rig) -> ProcessLease:
        lease = ProcessLease(rig.database, rig.queue, config, Ids(random.random), 8)
        await lease.open()
        made.append(lease)
        return lease

    yield open_
    for lease in made:
        lease.spool.close()


class Clock:
    """The clock that nobody sets, moved by the test."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._real = databases.elapsed

    def __call__(self) -> float:
        return self._real() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases_of_processes, "elapsed", clock)
    return clock


async def test_the_living_are_not_buried_whatever_the_clocks_say(
    processes: Callable[[], Rig], opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that steps by an hour, here or there, kills nobody."""
    one, two = processes(), processes()
    journal = one
    mine, other = await opened(one), await opened(two)
    journal.add(1)
    [claim] = two.claim(other.id)
    real = one.database.now
    for step in (3_600_000, -3_600_000):
        monkeypatch.setattr(one.database, "now", lambda step=step: real() + step)
        for _ in range(3):
            assert await mine.sweep(random.random) == 0
            assert await other.sweep(random.random) == 0
            assert await mine.beat()
            assert await other.beat()
    assert journal.row(claim.recipient_id).state == "sending"
    assert not other.spool.sealed


async def test_a_silent_process_is_buried_after_a_lease(
    processes: Callable[[], Rig], opened: Open, clock: Clock
) -> None:
    """It is stopped, say: its lock is held, but its heart does not beat."""
    one, two = processes(), processes()
    mine, other = await opened(one), await opened(two)
    ids = one.add(4)
    claims = two.claim(other.id)
    marks = [Mark.NONE, Mark.DOT, Mark.ACCEPTED, Mark.REFUSED]
    for claim, mark in zip(claims, marks, strict=True):
        other.spool.mark(other.spool.take(claim.recipient_id, claim.token), mark)
    for _ in range(4):
        assert await mine.sweep(random.random) == 0
        clock.ahead += 0.99
        assert await mine.beat()
    clock.ahead += 0.2
    assert await mine.sweep(random.random) == 4
    assert [one.row(i).state for i in ids] == ["queued", "queued", "sent", "queued"]
    kinds = [kind for _, kind in one.events(ids[1])]
    assert kinds == ["uncertain", "queued"]
    assert [r.kind for r in one.all("SELECT kind FROM attempts ORDER BY recipient_id")] == [
        "uncertain",
        "sent",
    ]
    # It wakes up: it may send nothing, settle nothing, and learns that it is dead.
    assert not other.valid
    assert not other.spool.mark(0, Mark.DOT)
    assert two.settle(settlement(claims[0], State.SENT)) == set()
    assert not await other.beat()
    assert two.claim(other.id) == []


async def test_a_process_that_beats_is_not_silent(
    processes: Callable[[], Rig], opened: Open, clock: Clock
) -> None:
    one, two = processes(), processes()
    mine, other = await opened(one), await opened(two)
    for _ in range(10):
        clock.ahead += 1.5
        assert await other.beat()
        assert await mine.beat()
        assert await mine.sweep(random.random) == 0
    assert other.valid


async def test_nobody_is_buried_after_an_outage_of_the_journal(
    processes: Callable[[], Rig], opened: Open, clock: Clock
) -> None:
    """None could beat meanwhile: who comes back first must give the others their time."""
    one, two = processes(), processes()
    mine, other = await opened(one), await opened(two)
    one.add(1)
    two.claim(other.id)
    assert await mine.sweep(random.random) == 0
    clock.ahead += 60
    assert not other.valid
    assert await mine.beat()
    assert await mine.sweep(random.random) == 0
    clock.ahead += 1.5
    assert await mine.sweep(random.random) == 0
    assert await other.beat()
    assert other.valid


async def test_without_evidence_everything_is_uncertain(
    journal: Rig, opened: Open, clock: Clock
) -> None:
    """Its spool is on another host."""
    mine = await opened(journal)
    lease = journal.lease(host=socket.gethostname() + "-2", spool="/nowhere")
    [id_] = journal.add(1)
    journal.claim(lease)
    for _ in range(5):
        assert await mine.sweep(random.random) == 0
        clock.ahead += 0.9
        assert await mine.beat()
    assert await mine.sweep(random.random) == 1
    assert [kind for _, kind in journal.events(id_)] == ["uncertain", "queued"]
    assert journal.count("leases") == 1


async def test_a_row_under_no_lease_is_found_and_settled(journal: Rig, opened: Open) -> None:
    mine = await opened(journal)
    [id_] = journal.add(1)
    lease = journal.lease()
    journal.claim(lease)
    journal.sql("DELETE FROM leases WHERE id = :id", id=lease)
    assert await mine.sweep_unclaimed(random.random) == 1
    assert journal.row(id_).state == "queued"
    assert journal.count("attempts", "kind = 'uncertain'") == 1


async def test_a_lease_is_valid_for_less_than_others_wait(
    journal: Rig, opened: Open, clock: Clock
) -> None:
    mine = await opened(journal)
    assert mine.valid
    clock.ahead += 2.1
    assert not mine.valid
    assert await mine.beat()
    assert mine.valid


async def test_processes_know_their_places(processes: Callable[[], Rig], opened: Open) -> None:
    held = [await opened(processes()) for _ in range(3)]
    for lease in held:
        assert await lease.beat()
    assert sorted((lease.of, lease.place) for lease in held) == [(3, 0), (3, 1), (3, 2)]


async def test_a_closed_lease_leaves_nothing(journal: Rig, opened: Open) -> None:
    mine = await opened(journal)
    path = mine.spool.path
    assert path.exists()
    await mine._remove(mine.id)
    assert journal.count("leases") == 0
