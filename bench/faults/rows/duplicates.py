"""The same said many times, and a message that kills whoever touches it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

from bench.faults.fault import Run, fault
from bench.faults.ground import BROKERS
from tests.acceptance.stage import connections_to, mails, until

#: After this a silent process is dead (seconds): mailgate's own default.
LEASE = 10


@fault(
    "duplicates",
    "each message is delivered 5 times in any order, to 2 intakes and 8 workers",
    "exactly 1 copy",
)
def duplicates(run: Run) -> None:
    many = run.many(2000, 200)
    settings = {"intake.batch": "20"}
    scene = run.stage(run.random.choice(BROKERS), "postgresql", settings=settings)
    documents = [m | {"idempotency_key": f"k{n}"} for n, m in enumerate(mails(many))]
    lot = [*documents] * 5
    run.random.shuffle(lot)
    scene.intake()
    scene.intake()
    workers = run.many(8, 3)
    for _ in range(workers):
        scene.worker(1)
    scene.publish(lot)
    scene.wait_finished(many, 60 + many / 10)
    # All of the repeats are taken in, too; what an intake has in hand of RabbitMQ is not counted.
    until(lambda: not scene.inbox(), 60, scene.logs)
    time.sleep(1)
    run.note(deliveries=len(lot), workers=workers)
    account = run.reckon(scene, documents, uncertain=0)
    assert account.copies == many


@fault(
    "poison",
    "a message kills its worker each time it is offered (SIGKILL from outside)",
    "held after max_claims deaths alone; neighbours once, < 1 lease late",
)
def poison(run: Run) -> None:
    many = run.many(2000, 200)
    settings = {
        "worker.max_claims": "3",
        "worker.lease": f"{LEASE}s",
        "worker.conversations": "10",
        "streams.transactional.retry.first": "1s",
    }
    scene = run.stage("valkey", "sqlite", settings=settings, plans={"poison": ["hang"]})
    scene.intake()
    worker = scene.worker(2)
    scene.wait_for_workers(2)
    deaths: list[int] = []
    over = threading.Event()

    def kill_whoever_offers_it() -> None:
        seen = 0
        while not over.is_set():
            hung = [c for c in scene.relay.book() if c.answer == "hang"]
            for copy in hung[seen:]:
                for pid in worker.children():
                    if copy.peer in connections_to(pid, scene.relay.port):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                            deaths.append(pid)
            seen = len(hung)
            time.sleep(0.02)

    killer = threading.Thread(target=kill_whoever_offers_it)
    killer.start()
    documents = mails(many)
    documents.insert(20, mails(1, to="poison")[0])
    try:
        scene.publish(documents)
        scene.wait_finished(many + 1, 60 + many / 50)
    finally:
        over.set()
        killer.join()
    # The first death is one among others: what they had past their dot nobody can know.
    run.reckon(scene, documents, states={"sent": many, "held": 1}, uncertain=10)
    accepted = {
        row["email"]: row["accepted_at"]
        for row in scene.journal.rows(
            "SELECT r.email, m.accepted_at FROM recipients r JOIN messages m ON m.id = r.message_id"
        )
    }
    waits = [c.end_at / 1e9 - accepted[c.recipient] / 1e3 for c in scene.relay.book() if c.taken]
    run.note(deaths=len(deaths), longest_wait_of_a_neighbour=round(max(waits), 1))
    assert max(waits) < LEASE
    # The first among others, then three alone.
    assert len(deaths) == 4
    [row] = scene.journal.rows("SELECT error_class FROM recipients WHERE state = 'held'")
    assert row["error_class"] == "poison"
    assert worker.running
