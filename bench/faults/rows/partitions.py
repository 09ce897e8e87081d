"""The network between mailgate and what it stands on is cut, or swallows everything."""

from __future__ import annotations

import time

from bench.faults.fault import Run, fault
from tests.acceptance.stage import mails, until

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


def part(run: Run, what: str, broker: str, journal: str, *, uncertain: int | None) -> None:
    """Cut once, swallow once, each for longer than a lease, with mail under way."""
    many = run.many(3000, 300)
    plans = {"n": ["slow 0.02"]}
    scene = run.stage(broker, journal, between=(what,), settings=SETTINGS, plans=plans)
    [proxy] = run.ground.proxies
    intake, worker = scene.intake(), scene.worker(2)
    scene.wait_for_workers(2)
    documents = mails(many)
    # The producer stands on the broker's side of the cut.
    inside = scene.broker
    if what == "broker":
        scene.broker = inside.replace(f":{proxy.port}/", f":{proxy.target}/")
    scene.publish(documents[: many // 2])
    until(lambda: len(scene.relay.taken()) >= many // 10, 60, scene.logs)
    run.strike()
    proxy.cut()
    scene.publish(documents[many // 2 :])
    time.sleep(1)
    quiet = len(scene.relay.book())
    time.sleep(3)
    if what in ("journal", "relay"):
        assert len(scene.relay.book()) == quiet, "mail went without a journal"
    proxy.heal()
    run.lift()
    until(lambda: len(scene.relay.taken()) >= many // 2, 90, scene.logs)
    proxy.hang()
    time.sleep(5)
    proxy.heal()
    run.lift()
    scene.wait_finished(many, 90)
    run.recovered(scene)
    assert intake.running
    assert worker.running
    run.reckon(scene, documents, uncertain=uncertain)


@fault("partition-broker-amqp", "the way to RabbitMQ is cut, then swallows all", "0 lost")
def partition_amqp(run: Run) -> None:
    part(run, "broker", "rabbitmq", "sqlite", uncertain=0)


@fault("partition-broker-redis", "the way to Valkey is cut, then swallows all", "0 lost")
def partition_redis(run: Run) -> None:
    part(run, "broker", "valkey", "sqlite", uncertain=0)


@fault(
    "partition-journal",
    "the way to PostgreSQL is cut, then swallows all, longer than a lease",
    "0 lost; a worker without a journal sends nothing",
)
def partition_journal(run: Run) -> None:
    # Nobody else is alive to bury it: both stand behind the same cut.
    part(run, "journal", "rabbitmq", "postgresql", uncertain=None)


@fault(
    "partition-relay",
    "the way to the relay is cut, then swallows all",
    "0 lost; uncertain ≤ conversations open",
)
def partition_relay(run: Run) -> None:
    part(run, "relay", "valkey", "sqlite", uncertain=40)
