"""Brokers that die, and brokers that forget everything."""

from __future__ import annotations

import signal
import time

from bench.faults.fault import Run, fault
from tests.acceptance.stage import Program, Stage, mails, until
from tests.acceptance.stage.load import Document

QUICK = {"intake.batch": "50", "worker.conversations": "10"}
SLOW = {"n": ["slow 0.05"]}
#: Consuming again within this after the broker is back (seconds).
AGAIN = 30.0
#: What is published then is sent within this (seconds), whatever Celery waits for.
BACK = 12.0


def _publish_ahead(scene: Stage, intake: Program, lot: list[Document]) -> None:
    """Publish, the second half while intake stands still: it stays in the broker."""
    half = len(lot) // 2
    scene.publish(lot[:half])
    many = len(scene.relay.taken())
    until(lambda: len(scene.relay.taken()) > many, 60, scene.logs)
    intake.signal(signal.SIGSTOP)
    scene.publish(lot[half:])


@fault(
    "rabbitmq-kills",
    "RabbitMQ dies by SIGKILL 10 times under load",
    "0 confirmed lost; consuming again ≤ 30 s",
)
def rabbitmq_kills(run: Run) -> None:
    each, times = run.many(500, 150), run.many(10, 1)
    scene = run.stage("rabbitmq", "sqlite", settings=QUICK, plans=SLOW)
    intake, worker = scene.intake(), scene.worker(2)
    documents, waits, inside = [], [], []
    for n in range(times):
        lot = mails(each, to=f"n{n}")
        _publish_ahead(scene, intake, lot)
        documents += lot
        run.strike()
        run.ground.rabbitmq.kill()
        inside.append(len(documents) - scene.journal.accepted())
        intake.signal(signal.SIGCONT)
        run.ground.rabbitmq.start()
        run.lift()
        after = mails(20, to=f"after{n}")
        scene.publish(after)
        documents += after
        begun = time.monotonic()
        scene.wait_accepted(len(documents), 90)
        waits.append(time.monotonic() - begun)
    scene.wait_finished(len(documents), 90)
    run.recovered(scene)
    run.note(kills=times, consuming_again_after=round(max(waits), 1), in_it_at_least=min(inside))
    assert max(waits) <= AGAIN
    assert min(inside) > 0, "it died with nothing in it"
    assert intake.running
    assert worker.running
    run.reckon(scene, documents, uncertain=0)


@fault(
    "valkey-kills",
    "Valkey (append-only file, fsync each second) dies by SIGKILL 10 times under load",
    "nothing older than a second lost; nothing twice; consuming again ≤ 30 s",
)
def valkey_kills(run: Run) -> None:
    each, times = run.many(500, 150), run.many(10, 1)
    persistent = run.ground.valkey.client()
    with persistent as client:
        client.config_set("appendonly", "yes")
        client.config_set("appendfsync", "everysec")
    scene = run.stage("valkey", "sqlite", settings=QUICK, plans=SLOW)
    intake, worker = scene.intake(), scene.worker(2)
    documents, waits, inside = [], [], []
    for n in range(times):
        lot = mails(each, to=f"n{n}")
        _publish_ahead(scene, intake, lot)
        documents += lot
        # What the promise leaves out: the last second before the kill.
        time.sleep(1.5)
        run.strike()
        run.ground.valkey.kill()
        inside.append(len(documents) - scene.journal.accepted())
        intake.signal(signal.SIGCONT)
        run.ground.valkey.start()
        run.lift()
        after = mails(20, to=f"after{n}")
        scene.publish(after)
        documents += after
        begun = time.monotonic()
        scene.wait_accepted(len(documents), 60)
        waits.append(time.monotonic() - begun)
    scene.wait_finished(len(documents), 90)
    run.recovered(scene)
    run.note(kills=times, consuming_again_after=round(max(waits), 1), in_it_at_least=min(inside))
    assert max(waits) <= AGAIN
    assert min(inside) > 0, "it died with nothing in it"
    assert intake.running
    assert worker.running
    run.reckon(scene, documents, uncertain=0)


@fault(
    "valkey-wiped",
    "FLUSHALL after intake: rings, latches and windows are gone",
    "0 accepted lost, without a ring",
)
def valkey_wiped(run: Run) -> None:
    many = run.many(5000, 300)
    settings = QUICK | {"relays.sink.rate": "400/s"}
    scene = run.stage("valkey", "postgresql", settings=settings)
    scene.intake()
    documents = mails(many)
    scene.publish(documents)
    scene.wait_accepted(many)
    scene.worker(2)
    until(lambda: len(scene.relay.taken()) >= many // 10, 60, scene.logs)
    with scene.redis() as client:
        for _ in range(3):
            run.strike()
            client.flushall()
            run.lift()
            time.sleep(0.2)
    scene.wait_finished(many, 60 + many / 50)
    run.recovered(scene)
    more = mails(50, to="after")
    scene.publish(more)
    scene.wait_finished(many + 50)
    run.reckon(scene, [*documents, *more], uncertain=0)


@fault(
    "rabbitmq-wiped",
    "every queue is deleted after intake, under its consumers",
    "0 accepted lost; new mail is taken in again",
)
def rabbitmq_wiped(run: Run) -> None:
    many = run.many(5000, 300)
    scene = run.stage("rabbitmq", "sqlite", settings=QUICK, plans=SLOW)
    scene.intake()
    scene.worker(2)
    documents = mails(many)
    scene.publish(documents)
    scene.wait_accepted(many)
    vhost = scene.broker.rpartition("/")[2]
    api = run.ground.rabbitmq.api
    run.strike()
    for queue in api("GET", f"/api/queues/{vhost}"):
        api("DELETE", f"/api/queues/{vhost}/{queue['name']}")
    run.lift()
    scene.wait_finished(many, 60 + many / 50)
    run.recovered(scene)
    names = {q["name"] for q in api("GET", f"/api/queues/{vhost}")}
    run.note(queues_back=sorted(names & {"mailgate.inbox", "mailgate.normal"}))
    more = mails(50, to="after")
    scene.publish(more)
    scene.wait_finished(many + 50)
    run.reckon(scene, [*documents, *more], uncertain=0)


def _away(run: Run, broker: str, journal: str) -> None:
    many = run.many(3000, 200)
    plans = {"n": ["slow 0.2"], "soft": ["451 4.7.1 Greylisted", "250"]}
    settings = QUICK | {
        "streams.transactional.retry.first": "10s",
        "streams.transactional.retry.cap": "10s",
        "streams.transactional.retry.jitter": "0",
    }
    scene = run.stage(broker, journal, settings=settings, plans=plans)
    server = run.ground.rabbitmq if broker == "rabbitmq" else run.ground.valkey
    intake, worker = scene.intake(), scene.worker(2)
    scene.wait_for_workers(2)
    # RabbitMQ 3.10 has the name of a new quorum queue on its disk after three seconds; killed
    # before, it comes back with a queue that nobody can use (dets, delayed write).
    time.sleep(4)
    documents = mails(20, to="soft")
    scene.publish(documents)
    until(lambda: scene.journal.states().get("deferred") == 20, 20, scene.logs)
    documents += mails(many)
    scene.publish(documents[20:])
    # All is taken in, the most of it waits, and some falls due when the broker is long away.
    scene.wait_accepted(len(documents))
    run.strike()
    server.kill()
    waiting = scene.journal.unfinished()
    deferred = scene.journal.states().get("deferred", 0)
    try:
        scene.wait_finished(len(documents), 30 + many / 50)
        gone = time.time() - run.struck
        # The lease of who works without a task is kept like any.
        assert len(scene.journal.workers()) == 2
    finally:
        server.start()
        run.lift()
    back = mails(50, to="back")
    scene.publish(back)
    # The worker's main process may be long from its next try to connect.
    scene.wait_finished(len(documents) + 50, BACK)
    run.recovered(scene)
    run.note(waiting_then=waiting, deferred_then=deferred, all_sent_without_it_after=round(gone, 1))
    assert waiting > deferred > 0
    assert intake.running
    assert worker.running
    run.reckon(scene, [*documents, *back], uncertain=0)


@fault(
    "rabbitmq-away",
    "RabbitMQ dies by SIGKILL when all is taken in, and comes back when all is sent",
    f"what is accepted goes on without it; what comes when it is back within {BACK:g} s",
)
def rabbitmq_away(run: Run) -> None:
    _away(run, "rabbitmq", "postgresql")


@fault("valkey-away", "the same of Valkey", "the same")
def valkey_away(run: Run) -> None:
    _away(run, "valkey", "sqlite")
