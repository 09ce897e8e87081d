"""A slow drip at 70% of what the relay lets through, with a random fault now and then.

Owns the load, the faults and the measurement of what the processes hold: memory and
descriptors of those that nothing happened to.
"""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.faults.fault import Run, fault
from bench.faults.rows.kills import SOON, conversations
from tests.acceptance.stage import Program, Stage, mails, until
from tests.acceptance.stage.load import Document
from tests.acceptance.stage.proc import family
from tests.acceptance.stage.relay import busiest

#: How long it takes (seconds); ``--soak`` says it.
SECONDS = 3600.0
#: Between two faults (seconds), at least and at most; and while the processes are warming up,
#: so that they have been through each of them often before anyone asks whether they grow.
APART, EARLY = (8.0, 25.0), (2.0, 6.0)
#: What the relay may be given (mails a second), and the share of it that comes in.
LIMIT, LOAD = 100, 0.7
SETTINGS = (
    SOON
    | {"relays.sink.rate": f"{LIMIT}/s"}
    | {"worker.lease": "5s", "breakers.relay.first": "1s", "breakers.relay.cap": "2s"}
)
#: Mails that wait at the beginning, while the journal is away.
BACKLOG = 3000
#: Until then a process has not filled its caches (seconds).
WARM = 600.0


class Meter:
    """Samples of memory and descriptors, by process."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots
        self.samples: dict[int, list[tuple[float, int, int]]] = defaultdict(list)

    def look(self) -> None:
        for root in self._roots:
            for pid in family(root):
                with suppress(OSError, ValueError):
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                    fds = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                    kib = pages * os.sysconf("SC_PAGE_SIZE") // 1024
                    self.samples[pid].append((time.monotonic(), kib, fds))

    def slopes(self, warm: float) -> list[tuple[int, float, int]]:
        """Of each process that lived long enough: RSS (KiB), % an hour, descriptors more."""
        found = []
        for lot in self.samples.values():
            kept = [s for s in lot if s[0] - lot[0][0] >= warm]
            if len(kept) < 10:
                continue
            line = statistics.linear_regression([s[0] for s in kept], [s[1] for s in kept])
            rss = statistics.median(s[1] for s in kept)
            third = len(kept) // 3
            # Connections to the relay come and go with the load; what leaks never goes.
            early = min(s[2] for s in kept[:third])
            late = min(s[2] for s in kept[-third:])
            found.append((int(rss), 100 * line.slope * 3600 / rss, late - early))
        return found

    def course(self, pid: int, parts: int = 10) -> list[float]:
        """RSS (MiB) of one process in each part of its time: steps, or a slope."""
        lot = [rss / 1024 for _, rss, _ in self.samples[pid]]
        cut = [lot[len(lot) * n // parts : len(lot) * (n + 1) // parts] for n in range(parts)]
        return [round(statistics.median(part), 1) for part in cut if part]


@fault(
    "soak",
    f"{LOAD:.0%} of what the relay's limit allows, for an hour, with random faults",
    "0 lost; memory < 1% an hour and descriptors flat; the backlog drains",
)
def soak(run: Run) -> None:
    scene = run.stage("rabbitmq", "postgresql", settings=SETTINGS)
    intake, steady = scene.intake(), scene.worker(1)
    victim = scene.keep(lambda: scene.worker(1))
    spare = scene.keep(scene.intake)
    scene.wait_for_workers(2)
    documents: list[Document] = []
    rate = LOAD * LIMIT
    meter = Meter([intake.pid, steady.pid])
    begun, warm = time.monotonic(), min(WARM, SECONDS / 3)
    end = begun + SECONDS
    made: dict[str, int] = defaultdict(int)
    lock, over = threading.Lock(), threading.Event()
    broken: list[str] = []
    hung: list[tuple[int, int]] = []
    open_then = 0

    def drip() -> None:
        n = 0
        due = time.monotonic()
        while time.monotonic() < end:
            lot = mails(max(1, round(rate / 2)), to=f"n{n}")
            n += 1
            # What the broker has not confirmed is said again, under the same key.
            lot = [m | {"idempotency_key": f"{n}-{k}"} for k, m in enumerate(lot)]
            for _ in range(60):
                try:
                    scene.publish(lot)
                    break
                except Exception:  # whatever the client says while the broker is down
                    time.sleep(0.5)
            else:
                broken.append("the producer found no broker for 30 s")
                return
            with lock:
                documents.extend(lot)
            due += 0.5
            time.sleep(max(0.0, due - time.monotonic()))
        over.set()

    def child_dies() -> None:
        pids = victim.program.children()
        if pids:
            os.kill(run.random.choice(pids), signal.SIGKILL)

    def relay_away() -> None:
        scene.relay.stop()
        time.sleep(2)
        scene.relay.start()

    def relay_hangs() -> None:
        begun = time.time_ns()
        scene.relay.freeze()
        time.sleep(3)
        scene.relay.thaw()
        hung.append((begun, time.time_ns() + 2 * 10**9))

    def broker_dies() -> None:
        run.ground.rabbitmq.kill()
        run.ground.rabbitmq.start()

    def journal_dies() -> None:
        run.ground.postgres.kill()
        time.sleep(1)
        run.ground.postgres.start()

    def still() -> None:
        pids = victim.program.children()
        if pids:
            os.kill(pids[0], signal.SIGSTOP)
            time.sleep(7)
            os.kill(pids[0], signal.SIGCONT)

    faults = {
        "worker child killed": child_dies,
        "worker killed": lambda: victim.program.signal(signal.SIGKILL),
        "intake killed": lambda: spare.program.signal(signal.SIGKILL),
        "relay away": relay_away,
        "relay hangs": relay_hangs,
        "broker killed": broker_dies,
        "journal killed": journal_dies,
        "worker stands still": still,
    }

    def whose(name: str) -> list[Program]:
        if name in ("broker killed", "intake killed"):
            return []
        of_the_victim = name in ("worker child killed", "worker killed", "worker stands still")
        return [victim.program] if of_the_victim else [victim.program, steady]

    # Everybody's hands are full once, as after a long outage: twice a batch waits in intake, and
    # the workers find more due than they may send. What that takes is bounded, and no growth.
    run.ground.postgres.kill()
    documents += mails(BACKLOG, to="full")
    scene.publish(documents)
    time.sleep(1)
    run.ground.postgres.start()
    producer = threading.Thread(target=drip)
    producer.start()
    after = time.monotonic() + 10
    while not over.wait(2.0) and not broken:
        meter.look()
        if time.monotonic() >= after and time.monotonic() < end - 20:
            name = run.random.choice(sorted(faults))
            run.strike()
            # What it comes to leaves no more in doubt than was open with them when it came.
            open_then += sum(conversations(scene, one) for one in whose(name))
            with suppress(ProcessLookupError):
                faults[name]()
            run.lift()
            made[name] += 1
            early = time.monotonic() < begun + warm
            after = time.monotonic() + run.random.uniform(*(EARLY if early else APART))
    producer.join()
    assert not broken, broken
    drained = until(lambda: _drained(scene, len(documents)), 300, scene.logs)
    run.recovered(scene)
    for one in (victim, spare):
        one.leave()
    slopes = meter.slopes(warm)
    # What a relay that stands still finds in its sockets it reads all at once, whether it was
    # told to or the machine had no time for it. Of that time only the whole can be judged: what
    # it reads then was written then.
    stalls = [(a, b) for a, b in scene.relay.stalls() if b - a < 10**9]
    hung += stalls
    seen = [c.mail_at for c in scene.relay.book()]
    fullest = busiest(seen, 1.0, hung)
    full = max(
        (sum(a < at < b for at in seen) / (LIMIT * (1 + (b - a) / 10**9)) for a, b in hung),
        default=0.0,
    )
    run.note(
        hours=round(SECONDS / 3600, 2),
        mails_a_second=round(rate, 1),
        fullest_second=fullest,
        fullest_hang=f"{full:.0%} of the limit",
        relay_stalls=len(stalls),
        longest_stall=round(max((b - a for a, b in stalls), default=0) / 10**9, 3),
        faults=dict(made),
        drained_after=round(drained, 1),
        rss_mib=[round(rss / 1024) for rss, _, _ in slopes],
        rss_mib_of_intake=meter.course(intake.pid),
        rss_percent_an_hour=[round(slope, 1) for _, slope, _ in slopes],
        descriptors_more=[fds for _, _, fds in slopes],
    )
    assert intake.running
    assert steady.running
    run.note(open_at_faults=open_then)
    run.reckon(scene, documents, uncertain=open_then)
    assert fullest <= LIMIT, "more in a second than the relay's limit"
    assert full <= 1, "more in the time of a hang than the relay's limit"
    assert all(fds <= 3 for _, _, fds in slopes), "descriptors leak"
    if SECONDS >= 3000:
        # In less time a slope is noise.
        assert len(slopes) >= 3, "intake, a worker and its child were not all watched"
        assert all(slope < 1 for _, slope, _ in slopes), "memory grows"


def _drained(scene: Stage, count: int) -> bool:
    return scene.journal.accepted() >= count and not scene.journal.unfinished()
