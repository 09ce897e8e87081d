"""The store of the permits forgets everything in the middle of a limited run."""

from __future__ import annotations

import time

from bench.faults.fault import Run, fault
from tests.acceptance.stage import mails, until
from tests.acceptance.stage.relay import busiest

RATE = 40


@fault(
    "limiter-wiped",
    "FLUSHALL of the limiter's store, again and again, under a limit of 40/s",
    "0 mails over the limit in any second",
)
def limiter_wiped(run: Run) -> None:
    many = run.many(2000, 240)
    scene = run.stage("valkey", "postgresql", settings={"relays.sink.rate": f"{RATE}/s"})
    scene.intake()
    scene.worker(2)
    documents = mails(many)
    scene.publish(documents)
    scene.wait_accepted(many)
    times = run.many(10, 2)
    for n in range(times):
        part = (n + 0.5) * many / (times + 1)
        until(lambda p=part: len(scene.relay.taken()) >= p, 120, scene.logs)
        run.strike()
        with scene.redis() as client:
            client.flushall()
        run.lift()
        time.sleep(run.random.random())
    scene.wait_finished(many, 60 + 2 * many / RATE)
    run.recovered(scene)
    fullest = busiest([c.mail_at for c in scene.relay.book()], 1.0)
    run.note(wiped=times, fullest_second=fullest)
    assert fullest <= RATE
    run.reckon(scene, documents, uncertain=0)
