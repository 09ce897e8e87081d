"""The network between mailgate and what it stands on is cut, or swallows everything."""

from __future__ import annotations

import time

from bench.faults.fault import Run, fault
from bench.faults.proxy import Proxy
from bench.faults.rows.kills import conversations
from tests.acceptance.stage import Stage, mails, until
from tests.acceptance.stage.books import Journal

SETTINGS = {
    "intake.batch": "50",
    "worker.conversations": "10",
    "worker.lease": "3s",
    "streams.transactional.retry.first": "1s",
    "streams.transactional.retry.factor": "1",
    "breakers.relay.first": "1s",
    "breakers.relay.cap": "1s",
    "relays.sink.command_timeout": "2s",
    "relays.sink.dot_timeout": "2s",
}


def _beyond(url: str, proxy: Proxy) -> str:
    return url.replace(f":{proxy.port}/", f":{proxy.target}/")


def _nothing_passes(scene: Stage, what: str, accepted: int) -> None:
    """Watch for longer than a lease what cannot go on."""
    time.sleep(1)
    sent = len(scene.relay.book())
    time.sleep(3.5)
    # Nothing new comes from a broker that nobody reaches, or into a journal.
    if what in ("broker", "journal"):
        assert scene.journal.accepted() == accepted, "mail came through the cut"
    if what in ("journal", "relay"):
        assert len(scene.relay.book()) == sent, "mail went through the cut"


def part(run: Run, what: str, broker: str, journal: str) -> None:
    """Cut once, swallow once, each for longer than a lease, with mail under way."""
    many = run.many(3000, 300)
    plans = {"n": ["slow 0.02"]}
    scene = run.stage(broker, journal, between=(what,), settings=SETTINGS, plans=plans)
    [proxy] = run.ground.proxies
    intake, worker = scene.intake(), scene.worker(2)
    scene.wait_for_workers(2)
    documents = mails(many)
    # The producer and whoever reads the books stand on the far side of the cut.
    if what == "broker":
        scene.broker = _beyond(scene.broker, proxy)
    if what == "journal":
        scene.journal = Journal(_beyond(scene.url, proxy))
    scene.publish(documents[: many // 2])
    until(lambda: len(scene.relay.taken()) >= many // 10, 60, scene.logs)
    until(lambda: scene.journal.accepted() >= many // 2, 60, scene.logs)
    port = proxy.port if what == "relay" else scene.relay.port
    run.strike()
    open_then = conversations(scene, worker, port)
    assert proxy.cut() > 0, "nobody stood behind it"
    scene.publish(documents[many // 2 : 3 * many // 4])
    _nothing_passes(scene, what, many // 2)
    proxy.heal()
    run.lift()
    until(lambda: scene.journal.accepted() >= 3 * many // 4, 90, scene.logs)
    until(lambda: len(scene.relay.taken()) >= many // 2, 90, scene.logs)
    open_then += conversations(scene, worker, port)
    proxy.hang()
    time.sleep(0.5)
    scene.publish(documents[3 * many // 4 :])
    _nothing_passes(scene, what, 3 * many // 4)
    proxy.heal()
    run.lift()
    scene.wait_finished(many, 90)
    run.recovered(scene)
    assert intake.running
    assert worker.running
    # Who comes back to the journal first may bury another past its dot.
    run.note(open_at_cuts=open_then)
    run.reckon(scene, documents, uncertain=0 if what == "broker" else open_then)


@fault("partition-broker-amqp", "the way to RabbitMQ is cut, then swallows all", "0 lost")
def partition_amqp(run: Run) -> None:
    part(run, "broker", "rabbitmq", "sqlite")


@fault("partition-broker-redis", "the way to Valkey is cut, then swallows all", "0 lost")
def partition_redis(run: Run) -> None:
    part(run, "broker", "valkey", "sqlite")


@fault(
    "partition-journal",
    "the way to PostgreSQL is cut, then swallows all, longer than a lease",
    "0 lost; a worker without a journal sends nothing; uncertain ≤ conversations open",
)
def partition_journal(run: Run) -> None:
    part(run, "journal", "rabbitmq", "postgresql")


@fault(
    "partition-relay",
    "the way to the relay is cut, then swallows all",
    "0 lost; uncertain ≤ conversations open",
)
def partition_relay(run: Run) -> None:
    part(run, "relay", "valkey", "sqlite")
