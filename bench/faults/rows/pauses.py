"""A process stands still (SIGSTOP) for longer than its lease, at the worst moments."""

from __future__ import annotations

import os
import signal
import time

from bench.faults.fault import Run, fault
from bench.faults.rows.kills import SOON
from tests.acceptance.stage import mails, until

#: Longest that a stopped process is known to be dead by: the lease and a look.
LEASE = 5.0


def stand_still(run: Run, point: str, copies: int, journal: str = "sqlite") -> None:
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


def _enter(point: str, where: str, copies: int) -> None:
    must = "sends nothing, 0 uncertain" if copies == 1 else "1 uncertain, 1 copy more at most"

    @fault(
        f"pause-{point.replace('.', '-').replace('_', '-')}",
        f"SIGSTOP past the lease {where}",
        must,
    )
    def pause(run: Run) -> None:
        stand_still(run, point, copies)


_enter("take.claimed", "after the claim", 1)
_enter("smtp.before_dot", "right before the dot is marked", 1)
_enter("smtp.marked", "between the mark and the dot", 2)
_enter("smtp.after_dot", "after the dot", 2)
_enter("settle.begin", "with the relay's 250 in hand", 2)
