"""A worker under the events of its life: rings, signals, deaths, limits."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Consumer

from mailgate.config.shape import Config
from mailgate.model.state import Lane
from mailgate.worker.doorbell import Doorbell
from mailgate.worker.settings import queues
from tests.acceptance.stage.proc import alive
from tests.integration.worker.conftest import Site, due, until
from tests.servers import Valkey

Doorbells = Callable[[Config], Doorbell]


def test_a_ring_runs_a_task_of_its_lane(site: Site, doorbell_of: Doorbells) -> None:
    site.worker()
    doorbell_of(site.config).ring(Lane.BULK)
    assert [entry["lane"] for entry in site.wait_for("delivered")] == ["bulk"]


@pytest.mark.alone
def test_a_lost_ring_costs_about_a_second(site: Site) -> None:
    site.worker(processes=2)
    for lane in Lane:
        said = site.say(due(lane))
        found = site.wait_for("delivered", lane=lane.value)
        assert found[0]["at"] - said < 1.5


def test_the_main_process_lets_go_of_what_nobody_can_reach(
    valkey_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_TEST_EVERY", "0.1")
    worker = valkey_site.worker()
    lost = valkey_site.directory / "lost"
    until(lost.exists, "a collection", 10, valkey_site.logs)
    assert lost.read_text() == f"{worker.process.pid}\n"


def _next_batch(url: str, act: Callable[[], None]) -> tuple[float, list[str]]:
    """When the events of tasks come that ``act`` begins, and their types."""
    app = Celery("watch", broker=url, set_as_current=False)
    app.conf.event_exchange = "mailgate.workers"
    heard: list[Any] = []
    with app.connection_for_read() as connection:
        queue = app.events.Receiver(connection).queue
        channel = connection.channel()
        with Consumer(channel, [queue], no_ack=True, callbacks=[lambda b, _: heard.append(b)]):
            while not heard:  # the worker's own
                connection.drain_events(timeout=10)
            act()
            while not isinstance(heard[-1], list):
                connection.drain_events(timeout=10)
    return time.time(), [event["type"] for event in heard[-1]]


def test_what_is_said_of_a_short_task_is_said_at_once_and_after_it_began(
    valkey: Valkey, site_of: Callable[[str], Site], doorbell_of: Doorbells
) -> None:
    """No task waits until the broker has heard of it; also after an outage (mends.py)."""
    site = site_of(valkey.broker_url)
    worker = site.worker()
    doorbell = doorbell_of(site.config)
    whole = ["task-received", "task-started", "task-succeeded"]
    at, said = _next_batch(valkey.broker_url, lambda: doorbell.ring(Lane.HIGH))
    assert said == whole
    assert at > site.wait_for("deliver")[0]["at"]
    valkey.kill()
    valkey.start()
    until(lambda: worker.log.read_text().count("Connected to") >= 2, "the broker")
    assert _next_batch(valkey.broker_url, lambda: doorbell.ring(Lane.HIGH))[1] == whole
    assert worker.stop()[0] == 0


def test_a_child_ends_with_its_main_process_in_the_middle_of_a_task(valkey_site: Site) -> None:
    worker = valkey_site.worker(processes=2)
    pids = [entry["pid"] for entry in valkey_site.book("start")]
    valkey_site.say("hold", "9")
    valkey_site.say(due(Lane.NORMAL))
    valkey_site.wait_for("deliver")
    worker.process.kill()
    worker.process.wait()
    until(lambda: not any(map(alive, pids)), "their end", 1)


def test_work_left_at_the_deadline_is_rung_for(valkey_site: Site) -> None:
    valkey_site.worker()
    valkey_site.say("hold", "9")
    valkey_site.say(due(Lane.NORMAL))
    valkey_site.wait_for("deliver")
    # Comes while this process works on the lane, so that its own look is silent.
    valkey_site.say(due(Lane.NORMAL))
    first, second = valkey_site.wait_for("deliver", 2)
    assert 1.9 < second["at"] - first["at"] < 2.9


def test_sigterm_lets_a_task_end_and_stops_the_gateways(site: Site) -> None:
    worker = site.worker(processes=2)
    site.say("hold", "1")
    site.say(due(Lane.HIGH))
    site.wait_for("deliver")
    code, _ = worker.stop()
    assert code == 0
    assert len(site.book("delivered")) == len(site.book("deliver"))
    assert site.book("cancelled") == []
    assert len(site.book("stopped")) == 2
    # The idle process need not wait for the busy one.
    for stopping in site.book("stopping"):
        ends = [e["at"] for e in site.book("delivered") if e["pid"] == stopping["pid"]]
        assert all(end < stopping["at"] for end in ends)


@pytest.mark.alone
def test_an_idle_worker_stops_at_once(site: Site) -> None:
    number = signal.SIGTERM if site.broker_url.startswith("amqp") else signal.SIGINT
    worker = site.worker(processes=2)
    code, seconds = worker.stop(number)
    assert (code, len(site.book("stopped"))) == (0, 2)
    assert seconds < 2


def test_conversations_are_drained_after_the_last_task(valkey_site: Site) -> None:
    worker = valkey_site.worker()
    valkey_site.say("drain", "1.5")
    code, seconds = worker.stop()
    assert code == 0
    assert len(valkey_site.book("stopped")) == 1
    assert seconds > 1.5


def test_a_killed_child_is_replaced_and_its_lane_goes_on(valkey_site: Site) -> None:
    valkey_site.worker()
    valkey_site.say("hold", "1")
    valkey_site.say(due(Lane.HIGH))
    [entry] = valkey_site.wait_for("deliver")
    os.kill(entry["pid"], signal.SIGKILL)
    valkey_site.say(due(Lane.HIGH))
    replaced = valkey_site.wait_for("delivered")[0]
    assert replaced["pid"] != entry["pid"]


def test_a_child_told_to_stop_drains_and_is_replaced(valkey_site: Site) -> None:
    # What an init system does that signals every process of a service.
    valkey_site.worker()
    valkey_site.say("hold", "9")
    valkey_site.say(due(Lane.HIGH))
    [entry] = valkey_site.wait_for("deliver")
    os.kill(entry["pid"], signal.SIGTERM)
    assert valkey_site.wait_for("cancelled")[0]["pid"] == entry["pid"]
    assert valkey_site.wait_for("stopped")[0]["pid"] == entry["pid"]
    valkey_site.wait_for("start", 2)


def test_a_child_that_has_had_its_tasks_drains_and_is_replaced(
    valkey_site: Site, doorbell_of: Doorbells
) -> None:
    worker = valkey_site.worker(settings={"worker_max_tasks_per_child": 1})
    for count in (1, 2):
        doorbell_of(valkey_site.config).ring(Lane.HIGH)
        valkey_site.wait_for("delivered", count)
        valkey_site.wait_for("stopped", count)
    first, second = valkey_site.book("delivered")
    assert first["pid"] != second["pid"]
    assert "ERROR" not in worker.log.read_text()


def test_a_dead_loop_ends_its_process_and_another_comes(valkey_site: Site) -> None:
    worker = valkey_site.worker()
    valkey_site.say("die")
    valkey_site.say("hold", "1")
    valkey_site.say(due(Lane.HIGH))
    valkey_site.wait_for("deliver")
    valkey_site.unsay("die")
    valkey_site.wait_for("start", 2)
    valkey_site.say(due(Lane.HIGH))
    valkey_site.wait_for("delivered")
    assert "the event loop died: SystemExit" in worker.log.read_text()


def test_a_blocked_loop_is_killed_by_the_hard_limit(valkey_site: Site) -> None:
    valkey_site.say("block")
    valkey_site.worker(settings={"task_soft_time_limit": 0.5, "task_time_limit": 1.5})
    valkey_site.say(due(Lane.HIGH))
    valkey_site.wait_for("deliver")
    valkey_site.unsay("block")
    valkey_site.wait_for("start", 2)
    valkey_site.say(due(Lane.HIGH))
    valkey_site.wait_for("delivered")


def test_the_soft_limit_cancels_the_task_and_nothing_else(valkey_site: Site) -> None:
    worker = valkey_site.worker(settings={"task_soft_time_limit": 0.5})
    valkey_site.say("hold", "9")
    valkey_site.say(due(Lane.HIGH))
    valkey_site.wait_for("cancelled")
    valkey_site.say("hold", "0")
    valkey_site.say(due(Lane.NORMAL))
    valkey_site.wait_for("delivered")
    assert len({entry["pid"] for entry in valkey_site.book("deliver")}) == 1
    assert "SoftTimeLimitExceeded" in worker.log.read_text()


def test_a_worker_waits_for_its_journal(valkey_site: Site, doorbell_of: Doorbells) -> None:
    valkey_site.say("away")
    worker = valkey_site.start("worker", concurrency=1)
    until(lambda: "does not open" in worker.log.read_text(), "the fault", 15, valkey_site.logs)
    doorbell_of(valkey_site.config).ring(Lane.HIGH)
    until(lambda: "GatewayClosed" in worker.log.read_text(), "the task", 15, valkey_site.logs)
    valkey_site.unsay("away")
    valkey_site.say(due(Lane.HIGH))
    valkey_site.wait_for("delivered")
    assert worker.log.read_text().count("does not open, trying on: no journal") == 1


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_share_one_loop(valkey_site: Site, pool: str) -> None:
    worker = valkey_site.worker(pool=pool, concurrency=3)
    valkey_site.say("hold", "0.5")
    for lane in Lane:
        valkey_site.say(due(lane))
    entries = valkey_site.wait_for("delivered", 3)
    assert {entry["pid"] for entry in entries} == {worker.process.pid}
    if pool == "threads":
        # All three had begun before the first ended.
        assert valkey_site.book("deliver")[2]["at"] < entries[0]["at"]
    code, seconds = worker.stop()
    assert (code, len(valkey_site.book("stopped"))) == (0, 1)
    assert seconds < 3


def test_a_worker_for_some_lanes_leaves_the_others(
    valkey_site: Site, doorbell_of: Doorbells
) -> None:
    valkey_site.worker(lanes=["high", "normal"])
    doorbell = doorbell_of(valkey_site.config)
    doorbell.ring(Lane.BULK)
    doorbell.ring(Lane.NORMAL)
    valkey_site.wait_for("delivered")
    time.sleep(0.3)
    assert [entry["lane"] for entry in valkey_site.book("deliver")] == ["normal"]


def test_two_workers_of_one_name_live_beside_each_other(
    rabbitmq: Any, site_of: Callable[[str], Site], doorbell_of: Doorbells
) -> None:
    # With the default exclusive control queue the second one dies: RESOURCE_LOCKED.
    site = site_of(rabbitmq.url)
    one, two = site.worker(), site.worker()
    one.stop()
    doorbell_of(site.config).ring(Lane.HIGH)
    site.wait_for("delivered")
    assert two.running


class Pickled:
    """Opens a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_a_stranger_in_the_queue_does_not_end_the_worker(site: Site, tmp_path: Path) -> None:
    worker = site.worker()
    [queue] = [q for q in queues() if q.name == "mailgate.high"]

    def logged(text: str) -> None:
        # One after the other: RabbitMQ keeps one message in this queue.
        until(lambda: text in worker.log.read_text(), text, 15, site.logs)

    with Celery("stranger", broker=site.broker_url, set_as_current=False) as app:
        app.send_task("mailgate.nonsense", queue=queue, retry=False, ignore_result=True)
        logged("KeyError: 'mailgate.nonsense'")
        app.send_task("mailgate.deliver", ["nonsense"], queue=queue, ignore_result=True)
        logged("'nonsense' is not a valid Lane")
        with Connection(site.broker_url) as connection:
            connection.Producer().publish("{not json", routing_key=queue.name, serializer="raw")
        logged("unknown message")
        opened = tmp_path / "opened"
        with Connection(site.broker_url) as connection:
            connection.Producer().publish(
                pickle.dumps(Pickled(str(opened))),
                routing_key=queue.name,
                headers={"task": "mailgate.deliver", "id": "1", "lang": "py"},
                content_type="application/x-python-serialize",
                content_encoding="binary",
            )
        logged("ContentDisallowed")
    assert not opened.exists()
    site.say(due(Lane.HIGH))
    site.wait_for("delivered")
    assert worker.running
