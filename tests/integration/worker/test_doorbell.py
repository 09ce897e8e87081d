"""Rings over real brokers: few, never in the way, and forgotten while the broker is away."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amqp
import pytest
import redis
from kombu import Connection, Producer

from mailgate.config.shape import Config
from mailgate.model.state import Lane
from mailgate.worker.amqp_bell import message
from mailgate.worker.doorbell import Doorbell
from mailgate.worker.ring import parcel, ring
from mailgate.worker.settings import queue_name, queues
from tests.acceptance.stage.proc import children
from tests.integration.worker.conftest import Site, due, until
from tests.servers import Valkey, Vhost, free_port

Doorbells = Callable[[Config], Doorbell]


def waiting(url: str, lane: Lane) -> int:
    """Rings in the queue of a lane that no worker has taken."""
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        if connection.transport.driver_type == "redis":
            return int(channel.client.llen(queue_name(lane)))
        [queue] = [q for q in queues() if q.name == queue_name(lane)]
        found: Any = queue(channel).queue_declare()
        return int(found.message_count)


def test_a_thousand_rings_from_many_sides_are_one(broker_url: str, doorbell_of: Doorbells) -> None:
    config = Config.model_validate({"broker": {"url": broker_url}})

    def ring() -> None:
        with doorbell_of(config) as doorbell:
            for _ in range(250):
                doorbell.ring(Lane.BULK)
                time.sleep(0.001)

    sides = [threading.Thread(target=ring) for _ in range(4)]
    for side in sides:
        side.start()
    for side in sides:
        side.join()
    assert waiting(broker_url, Lane.BULK) == 1
    assert waiting(broker_url, Lane.HIGH) == 0


def by_kombu(channel: Any) -> None:
    """A ring as kombu publishes it."""
    headers, body = ring(Lane.BULK, "number", "me@here")
    Producer(channel).publish(
        body,
        routing_key=queue_name(Lane.BULK),
        serializer="json",
        delivery_mode=1,
        headers=headers,
        correlation_id="number",
        reply_to="",
    )


def test_a_ring_on_redis_is_what_kombu_would_push(valkey: Valkey) -> None:
    """Byte for byte, but for the two numbers that are drawn for each."""
    queue = queue_name(Lane.BULK)
    with Connection(valkey.url) as connection:
        channel: Any = connection.default_channel
        by_kombu(channel)
        [pushed] = channel.client.lrange(queue, 0, -1)
        with Doorbell(Config.model_validate({"broker": {"url": valkey.url}})) as doorbell:
            doorbell.ring(Lane.BULK)
        [ours] = channel.client.lrange(queue, 0, -1)
    tag = json.loads(pushed)["properties"]["delivery_tag"]
    assert parcel(Lane.BULK, "number", "me@here", tag) == pushed.decode()
    said = json.loads(ours)
    assert said["properties"].keys() == json.loads(pushed)["properties"].keys()
    assert said["headers"]["id"] == said["properties"]["correlation_id"] != "number"


def test_a_ring_on_rabbitmq_is_what_kombu_would_publish(rabbitmq: Vhost) -> None:
    name = queue_name(Lane.BULK)
    [queue] = [q for q in queues() if q.name == name]

    def taken(channel: Any) -> amqp.Message:
        until(lambda: channel.queue_declare(name, passive=True).message_count == 1, "the ring")
        return channel.basic_get(name, no_ack=True)

    # The bell first: what it declares must be what the workers do.
    with Doorbell(Config.model_validate({"broker": {"url": rabbitmq.url}})) as doorbell:
        doorbell.ring(Lane.BULK)
        until(lambda: rabbitmq.depth(name) == 1, "the ring")
    with Connection(rabbitmq.url) as connection:
        channel: Any = connection.default_channel
        assert queue(channel).declare() == name
        ours = taken(channel)
        by_kombu(channel)
        theirs = taken(channel)
    sent = message(Lane.BULK, "number", "me@here")
    assert (sent.body, sent.properties) == (theirs.body.encode(), theirs.properties)
    assert ours.body == theirs.body
    assert ours.properties.keys() == theirs.properties.keys()
    assert ours.properties["application_headers"]["id"] == ours.properties["correlation_id"]
    bound = rabbitmq.api("GET", f"/api/queues/{{vhost}}/{name}/bindings")
    assert "mailgate.rings" in {one["source"] for one in bound}


def test_a_ring_goes_to_the_server_that_is_there(valkey: Valkey) -> None:
    url = f"redis://127.0.0.1:{free_port()};{valkey.url}"
    with Doorbell(Config.model_validate({"broker": {"url": url}})) as doorbell:
        doorbell.ring(Lane.HIGH)
        until(lambda: waiting(valkey.url, Lane.HIGH) == 1, "the ring")
        valkey.kill()
        doorbell.ring(Lane.BULK)
        until(lambda: doorbell.unheard, "the silence")
        valkey.start()
        doorbell.ring(Lane.BULK)
        until(lambda: waiting(valkey.url, Lane.BULK) == 1, "the ring after it")
    assert not doorbell.unheard


def test_rings_go_where_the_workers_listen(
    valkey: Valkey, server_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To the first server again with each new connection; one that refuses is not gone."""
    other = Valkey(server_directory / "other")
    try:
        url = f"{valkey.url};{other.url}"
        with Doorbell(Config.model_validate({"broker": {"url": url}})) as doorbell:
            valkey.kill()
            doorbell.ring(Lane.HIGH)
            until(lambda: waiting(other.url, Lane.HIGH) == 1, "a ring at the second")
            valkey.start()
            other.kill()
            doorbell.ring(Lane.NORMAL)
            until(lambda: waiting(valkey.url, Lane.NORMAL) == 1, "a ring at the first")
            other.start()
            with redis.Redis.from_url(valkey.url) as client:
                client.config_set("maxmemory-policy", "noeviction")
                client.config_set("maxmemory", 1)
                doorbell.ring(Lane.BULK)
                until(lambda: doorbell.unheard, "the refusal")
                client.config_set("maxmemory", 0)
            assert waiting(other.url, Lane.BULK) == 0
            doorbell.ring(Lane.BULK)
            until(lambda: waiting(valkey.url, Lane.BULK) == 1, "a ring that is taken")
        assert "the broker does not take rings (OutOfMemoryError)" in caplog.text
    finally:
        other.stop()


def test_a_bell_that_cannot_be_made_is_an_unheard_one(caplog: pytest.LogCaptureFixture) -> None:
    with Doorbell(
        Config.model_validate({"broker": {"url": "redis://127.0.0.1:1/0?health_check_interval=x"}})
    ) as doorbell:
        doorbell.ring(Lane.HIGH)
        until(lambda: doorbell.unheard, "the silence")
    assert caplog.text.count("the broker does not take rings") == 1


def test_a_thousand_rings_at_a_busy_worker_leave_no_pile(
    site: Site, doorbell_of: Doorbells
) -> None:
    site.worker()
    site.say("hold", "1")
    doorbell = doorbell_of(site.config)
    for _ in range(1000):
        doorbell.ring(Lane.NORMAL)
        time.sleep(0.001)
    site.wait_for("delivered", 2)
    time.sleep(1.5)
    # What runs, what its worker holds, what waits: each at most once.
    assert len(site.book("deliver")) <= 4
    assert waiting(site.broker_url, Lane.NORMAL) == 0


def test_the_last_ring_is_never_the_one_left_out(site: Site, doorbell_of: Doorbells) -> None:
    site.worker()
    doorbell = doorbell_of(site.config)
    for _ in range(30):
        before = len(site.book("deliver"))
        for _ in range(5):
            doorbell.ring(Lane.HIGH)
        last = time.time()
        doorbell.ring(Lane.HIGH)
        while site.wait_for("deliver", before + 1)[-1]["at"] < last:
            before += 1


def test_rings_survive_a_fork(broker_url: str, doorbell_of: Doorbells) -> None:
    config = Config.model_validate({"broker": {"url": broker_url}})
    doorbell = doorbell_of(config)
    doorbell.ring(Lane.HIGH)
    until(lambda: waiting(broker_url, Lane.HIGH) == 1, "the parent's ring")

    def in_child() -> None:
        doorbell.ring(Lane.BULK)
        doorbell.close()

    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join(10)
    assert child.exitcode == 0
    assert waiting(broker_url, Lane.BULK) == 1
    doorbell.ring(Lane.NORMAL)
    until(lambda: waiting(broker_url, Lane.NORMAL) == 1, "another ring of the parent")


@pytest.mark.alone
@pytest.mark.parametrize("broker", ["valkey", "rabbitmq"])
def test_a_worker_and_a_doorbell_survive_the_death_of_their_broker(
    broker: str,
    request: pytest.FixtureRequest,
    site_of: Callable[[str], Site],
    doorbell_of: Doorbells,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mailgate.worker.doorbell")
    server: Any = request.getfixturevalue(broker)
    site = site_of(server.url)
    node = server if broker == "valkey" else server.node
    # As Celery starts it, with gossip, and with a late-acknowledged task under way: that
    # ends a worker of kombu 5.7 unmended (mends.py).
    worker = site.worker(processes=2, program_name="celery")
    doorbell = doorbell_of(site.config)
    site.say("hold", "1.5")
    doorbell.ring(Lane.HIGH)
    [entry] = site.wait_for("deliver")
    node.kill()
    slowest = 0.0
    while not site.book("delivered"):
        begin = time.perf_counter()
        doorbell.ring(Lane.NORMAL)
        slowest = max(slowest, time.perf_counter() - begin)
        time.sleep(0.01)
    node.start()
    assert slowest < 0.1
    site.say("hold", "0")
    site.say(due(Lane.BULK))
    site.wait_for("delivered", lane="bulk", timeout=30)
    assert entry["pid"] in {e["pid"] for e in site.wait_for("start", 2)}
    # The doorbell's connection from before is dead too; the next ring goes over a new one.
    doorbell.ring(Lane.HIGH)
    site.wait_for("delivered", lane="high", count=2)
    said = [record.message for record in caplog.records]
    assert [s.partition(" (")[0] for s in said if "does not" in s] == [
        "the broker does not take rings"
    ]
    assert len([s for s in said if "takes rings again" in s]) == 1
    # And after all that a child is still replaced.
    os.kill(entry["pid"], signal.SIGKILL)
    started = site.wait_for("start", 3, timeout=3)
    assert worker.stop()[0] == 0
    assert {e["pid"] for e in started} - {entry["pid"]} == {e["pid"] for e in site.book("stopped")}


def test_cut_connections_are_made_again(
    rabbitmq: Any, site_of: Callable[[str], Site], doorbell_of: Doorbells
) -> None:
    site = site_of(rabbitmq.url)
    worker = site.worker()
    doorbell = doorbell_of(site.config)
    doorbell.ring(Lane.NORMAL)
    site.wait_for("delivered")
    until(lambda: rabbitmq.close_connections() >= 2, "the connections to be listed", 10)
    site.say(due(Lane.BULK))
    site.wait_for("delivered", lane="bulk")
    doorbell.ring(Lane.HIGH)
    site.wait_for("delivered", lane="high")
    assert worker.running


def test_work_goes_on_while_the_broker_is_away(
    valkey: Valkey, site_of: Callable[[str], Site], doorbell_of: Doorbells
) -> None:
    """In the worker's own lanes, and until it is told to stop; with the broker tasks come back."""
    site = site_of(valkey.url)
    worker = site.worker(lanes=["high", "normal"])
    valkey.kill()
    for count in (1, 2):
        site.say(due(Lane.NORMAL))
        site.wait_for("delivered", lane="normal", count=count)
    site.say(due(Lane.BULK))
    time.sleep(1.7)
    assert not site.book("deliver", lane="bulk")
    valkey.start()
    # Nothing is due there: a task, and no work without one.
    doorbell_of(site.config).ring(Lane.HIGH)
    site.wait_for("delivered", lane="high")
    valkey.kill()
    site.say("hold", "9")
    begun = len(site.book("deliver", lane="normal"))
    site.say(due(Lane.NORMAL))
    site.wait_for("deliver", lane="normal", count=begun + 1)
    code, seconds = worker.stop()
    assert code == 0
    assert seconds < 5
    assert site.book("stopped")


def test_a_child_that_dies_while_the_broker_is_away_is_replaced(
    valkey: Valkey, site_of: Callable[[str], Site]
) -> None:
    """Works at once, and is not taken for one that never started when the broker is back."""
    site = site_of(valkey.url)
    worker = site.worker(settings={"worker_proc_alive_timeout": 1})
    [first] = site.book("start")
    valkey.kill()
    site.say(due(Lane.NORMAL))
    site.wait_for("delivered")
    os.kill(first["pid"], signal.SIGKILL)
    _, second = site.wait_for("start", 2, timeout=5)
    site.say(due(Lane.HIGH))
    site.wait_for("delivered", lane="high")
    # Longer than Celery is told to give a child for its start.
    time.sleep(max(0.0, second["at"] + 2 - time.time()))
    valkey.start()
    until(lambda: worker.log.read_text().count("ready.") >= 1, "a worker", 15, site.logs)
    site.say(due(Lane.BULK))
    site.wait_for("delivered", lane="bulk")
    time.sleep(1.5)
    assert worker.stop()[0] == 0
    assert len(site.book("start")) == 2
    assert [entry["pid"] for entry in site.book("stopped")] == [second["pid"]]
    assert "Timed out" not in worker.log.read_text()


def test_a_child_that_starts_as_the_broker_goes_away_is_not_killed_when_it_is_back(
    valkey: Valkey, site_of: Callable[[str], Site]
) -> None:
    """Celery looks at the clock of its start before it reads that it has started (mends.py)."""
    site = site_of(valkey.url)
    worker = site.worker(settings={"worker_proc_alive_timeout": 2})
    [first] = site.book("start")
    os.kill(first["pid"], signal.SIGKILL)
    until(lambda: set(children(worker.process.pid)) - {first["pid"]}, "a child", 5)
    valkey.kill()
    _, second = site.wait_for("start", 2)
    time.sleep(3)
    valkey.start()
    until(lambda: worker.log.read_text().count("Connected to") >= 2, "the broker", 15, site.logs)
    time.sleep(2.5)
    assert worker.stop()[0] == 0
    assert [entry["pid"] for entry in site.book("stopped")] == [second["pid"]]
    assert "Timed out" not in worker.log.read_text()


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_that_never_met_its_broker_works(
    pool: str, valkey: Valkey, site_of: Callable[[str], Site]
) -> None:
    site = site_of(valkey.url)
    valkey.kill()
    worker = site.start("worker", concurrency=1, pool=pool)
    site.wait_for("start")
    site.say(due(Lane.BULK))
    site.wait_for("delivered", lane="bulk")
    valkey.start()
    until(lambda: "ready." in worker.log.read_text(), "a worker", 15, site.logs)
    assert worker.stop()[0] == 0


def test_a_task_that_ended_while_the_broker_was_away_was_not_over_its_time(
    valkey: Valkey, site_of: Callable[[str], Site], doorbell_of: Doorbells
) -> None:
    """Its result is read late: the child that it was in has done nothing (mends.py)."""
    site = site_of(valkey.url)
    worker = site.worker(settings={"task_soft_time_limit": 1, "task_time_limit": 2})
    site.say("hold", "0.3")
    doorbell_of(site.config).ring(Lane.HIGH)
    site.wait_for("deliver")
    valkey.kill()
    site.wait_for("delivered")
    time.sleep(1)  # the main process is between two tries to connect
    valkey.start()
    site.say("hold", "0")
    site.say(due(Lane.BULK))
    site.wait_for("delivered", lane="bulk", timeout=15)
    time.sleep(1.5)
    assert worker.stop()[0] == 0
    assert len(site.book("start")) == 1
    assert "time limit" not in worker.log.read_text()
