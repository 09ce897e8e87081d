"""What the gateway stands on goes away and comes back; nobody restarts mailgate's processes."""

from __future__ import annotations

import time
from typing import Any

from tests.acceptance.conftest import Setting
from tests.acceptance.stage import Stage, mails, until
from tests.servers import Postgres, RabbitMQ, Valkey

QUICK = {"intake.batch": "50", "worker.conversations": "10"}


def wait_taken(scene: Stage, count: int) -> None:
    until(lambda: sum(scene.relay.taken().values()) >= count, 60, scene.logs)


def running_pids(scene: Stage) -> list[int]:
    return sorted(scene.journal.workers(within=20))


def test_a_journal_that_is_away_stops_intake_and_sending_and_nothing_is_lost(
    stage: Setting, postgres_server: Postgres, rabbitmq_server: RabbitMQ, figure: Any
) -> None:
    # Away for longer than a lease, so that each worker must take itself for dead.
    scene = stage(
        "rabbitmq",
        "postgresql",
        settings=QUICK | {"worker.lease": "3s"},
        plans={"n": ["slow 0.05"]},
    )
    documents = mails(1000)
    first, rest = documents[:600], documents[600:]
    intake, worker = scene.intake(), scene.worker(2)
    scene.wait_for_workers(2)
    before = running_pids(scene)
    scene.publish(first)
    wait_taken(scene, 150)
    postgres_server.stop()
    scene.publish(rest)
    # What was claimed is sent; then there is silence, however much waits.
    time.sleep(2)
    quiet = len(scene.relay.book())
    time.sleep(3)
    assert len(scene.relay.book()) == quiet
    assert intake.running
    assert worker.running
    postgres_server.start()
    back = time.monotonic()
    scene.wait_finished(1000, 90)
    took = time.monotonic() - back
    account = scene.account(documents)
    figure(seconds_to_finish=round(took, 1), taken_before=quiet, uncertain=account.uncertain)
    assert account.clean, account
    assert account.states == {"sent": 1000}
    assert account.uncertain == 0
    assert running_pids(scene) == before
    assert scene.journal.one("SELECT count(*) FROM parked") == 0


def test_a_killed_rabbitmq_loses_nothing_that_it_confirmed(
    stage: Setting, rabbitmq_server: RabbitMQ, figure: Any
) -> None:
    scene = stage("rabbitmq", "sqlite", settings=QUICK, plans={"n": ["slow 0.05"]})
    documents = mails(1200)
    scene.publish(documents[:1000])
    intake, worker = scene.intake(), scene.worker(2)
    wait_taken(scene, 100)
    rabbitmq_server.kill()
    rabbitmq_server.start()
    back = time.monotonic()
    scene.publish(documents[1000:])
    scene.wait_accepted(1200, 60)
    accepted = time.monotonic() - back
    scene.wait_finished(1200, 60)
    account = scene.account(documents)
    figure(seconds_to_consume_again=round(accepted, 1), uncertain=account.uncertain)
    assert account.clean, account
    assert account.states == {"sent": 1200}
    assert account.uncertain == 0
    assert intake.running
    assert worker.running


def test_a_killed_and_emptied_valkey_costs_nothing_that_was_accepted(
    stage: Setting, valkey_server: Valkey, figure: Any
) -> None:
    settings = QUICK | {"relays.sink.rate": "200/s"}
    scene = stage("valkey", "sqlite", settings=settings)
    documents = mails(700)
    intake, worker = scene.intake(), scene.worker(2)
    scene.publish(documents[:500])
    scene.wait_accepted(500)
    # It keeps nothing on disk here: rings, latches and the limiter's windows are gone.
    valkey_server.kill()
    time.sleep(0.5)
    valkey_server.start()
    scene.wait_finished(500, 60)
    scene.publish(documents[500:600])
    scene.wait_accepted(600, 60)
    with scene.redis() as client:
        client.flushall()
    wiped = time.monotonic()
    scene.wait_finished(600, 60)
    scene.publish(documents[600:], door="list")
    scene.wait_finished(700, 60)
    took = time.monotonic() - wiped
    account = scene.account(documents)
    figure(seconds_after_flush=round(took, 1), uncertain=account.uncertain)
    assert account.clean, account
    assert account.states == {"sent": 700}
    assert account.uncertain == 0
    assert intake.running
    assert worker.running
