"""A process stands still (SIGSTOP) for longer than its lease, at the worst moments."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from bench.faults.fault import Run, fault
from bench.faults.ground import JOURNALS
from bench.faults.rows.kills import SOON
from tests.acceptance.stage import mails, until

#: Longest that a stopped process is known to be dead by: the lease and a look.
LEASE = 5.0


def stand_still(run: Run, point: str, copies: int, journal: str) -> None:
    """One process stops at ``point``, is buried, and wakes up when others have done its work.

    ``copies`` is how many of the mail in its hand there may be in the end.
    """
    settings = SOON | {"worker.lease": f"{LEASE:g}s", "worker.conversations": "1"}
    scene = run.stage("valkey", journal, settings=settings)
    scene.arm(f"{point}=stop@2")
    scene.intake()
    scene.worker(2)
    scene.wait_for_workers(2)
    documents = mails(40)
    scene.publish(documents)
    until(lambda: bool(scene.fired()), 20, scene.logs)
    run.strike()
    [(_, pid)] = scene.fired()
    run.lift()
    scene.wait_finished(40, 60)
    run.recovered(scene)
    # Nobody has heard of it for a lease. Now it goes on where it was.
    time.sleep(0.5)
    os.kill(pid, signal.SIGCONT)
    until(lambda: pid in scene.journal.workers(), 20, scene.logs)
    more = mails(10, to="after")
    scene.publish(more)
    scene.wait_finished(50)
    account = run.reckon(scene, [*documents, *more], uncertain=copies - 1)
    assert account.copies <= 50 + copies - 1


def wake_late(run: Run, *, amid: bool, **more: Any) -> None:
    """Processes stop with a relay's refusal in hand; others try again, and are taken.

    They wake up when the others are done or, ``amid``, while these still talk: then what
    they know of is over, or another's. ``more`` is for the stage.
    """
    settings = SOON | {"worker.lease": f"{LEASE:g}s", "worker.conversations": "10"}
    if amid:
        # Not due at once: who wakes up would claim it in the same turn, and may not send.
        settings |= {"streams.transactional.retry.first": "20s"}
    plans = {"n": ["dot 451 4.3.0 Later", "slow 4" if amid else "250"]}
    # On SQLite whoever is stopped while another thread of his writes stops all others too
    # (``pause-amid-a-commit``), and is not buried.
    scene = run.stage("valkey", "postgresql", settings=settings, plans=plans, **more)
    scene.arm("settle.begin=stop")
    scene.intake()
    scene.worker(1)
    scene.wait_for_workers(1)
    # Of several, one could have its dot out and no reply yet, and that one is uncertain.
    many = 1
    documents = mails(many)
    scene.publish(documents)
    until(lambda: bool(scene.fired()), 20, scene.logs)
    run.strike()
    [(_, pid)] = scene.fired()
    scene.disarm()
    scene.worker(1)
    if amid:
        others = (
            "SELECT count(*) FROM recipients r JOIN leases l ON l.id = r.lease_id"
            " WHERE r.state = 'sending' AND l.pid <> :pid"
        )
        until(lambda: scene.journal.one(others, pid=pid) > 0, 30, scene.logs)
        time.sleep(1)
    else:
        scene.wait_finished(many)
    run.lift()
    os.kill(pid, signal.SIGCONT)
    until(lambda: pid in scene.journal.workers(), 20, scene.logs)
    scene.wait_finished(many)
    if not amid:
        # What it has undone would be sent again by now.
        time.sleep(2)
        scene.wait_finished(many)
    run.recovered(scene)
    run.reckon(scene, documents, uncertain=0)


def _enter(point: str, where: str, copies: int, journal: str) -> None:
    must = "sends nothing, 0 uncertain" if copies == 1 else "1 uncertain, 1 copy more at most"
    suffix = "" if journal == "sqlite" else f"-{journal}"

    @fault(
        f"pause-{point.replace('.', '-').replace('_', '-')}{suffix}",
        f"SIGSTOP past the lease {where}; {journal}",
        must,
    )
    def pause(run: Run) -> None:
        stand_still(run, point, copies, journal)


for _journal in JOURNALS:
    _enter("take.claimed", "after the claim", 1, _journal)
    _enter("smtp.before_dot", "right before the dot is marked", 1, _journal)
    _enter("smtp.marked", "between the mark and the dot", 2, _journal)
    _enter("smtp.after_dot", "after the dot", 2, _journal)
    _enter("settle.begin", "with the relay's 250 in hand", 2, _journal)


@fault(
    "pause-refused",
    "SIGSTOP past the lease with the relay's 451 in hand, until others have sent the mail",
    "1 copy each, 0 uncertain",
)
def pause_refused(run: Run) -> None:
    wake_late(run, amid=False)


@fault(
    "pause-refused-amid",
    "SIGSTOP past the lease with the relay's 451 in hand, until others are sending the mail",
    "1 copy each, 0 uncertain",
)
def pause_refused_amid(run: Run) -> None:
    wake_late(run, amid=True)


@fault(
    "pause-amid-a-commit",
    "SIGSTOP past the lease within a transaction, on SQLite, where it holds up all who write",
    "nobody is buried, 0 uncertain; all goes on when it wakes up",
)
def pause_amid_a_commit(run: Run) -> None:
    settings = SOON | {"worker.lease": f"{LEASE:g}s", "worker.conversations": "10"}
    scene = run.stage("valkey", "sqlite", settings=settings)
    scene.arm("settle.before_commit=stop")
    scene.intake()
    scene.worker(2)
    scene.wait_for_workers(2)
    before = sorted(scene.journal.workers())
    documents = mails(40)
    scene.publish(documents)
    until(lambda: bool(scene.fired()), 20, scene.logs)
    run.strike()
    [(_, pid)] = scene.fired()
    time.sleep(2 * LEASE)
    left = scene.journal.unfinished()
    assert left > 0, "somebody wrote"
    run.lift()
    os.kill(pid, signal.SIGCONT)
    scene.wait_finished(40, 60)
    run.recovered(scene)
    run.note(waited=left)
    assert sorted(scene.journal.workers(within=20)) == before
    run.reckon(scene, documents, uncertain=0)
