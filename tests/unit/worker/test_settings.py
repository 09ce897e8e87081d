"""What Celery is told, from the configuration alone."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from mailgate.config.shape import Config
from mailgate.model.state import Lane
from mailgate.worker.broker import broker_settings
from mailgate.worker.celery_app import PlainTask
from mailgate.worker.ring import ring
from mailgate.worker.settings import (
    CLEAN,
    TASK,
    WorkerSettingsError,
    celery_settings,
    queues,
    route,
    time_limits,
)


def settings(url: str | None, **worker: Any) -> dict[str, Any]:
    return celery_settings(Config.model_validate({"broker": {"url": url}, "worker": worker}))


@pytest.mark.parametrize("deadline", [0.1, 5, 60, 1739])
def test_every_limit_lies_above_the_one_before(deadline: float) -> None:
    limits = time_limits(deadline)
    assert list(limits) == sorted(set(limits))
    found = settings("redis://broker", deadline=deadline)
    assert deadline < found["task_soft_time_limit"] < found["task_time_limit"]
    assert found["task_time_limit"] < found["broker_transport_options"]["visibility_timeout"]


def test_a_deadline_beyond_the_brokers_patience_is_refused() -> None:
    with pytest.raises(WorkerSettingsError, match=r"worker\.deadline is 1740 seconds"):
        settings("amqp://broker", deadline=1740)


def test_no_broker_is_refused_by_name_of_the_key() -> None:
    with pytest.raises(WorkerSettingsError, match=r"broker\.url is not set"):
        settings(None)


def test_a_queue_per_lane_keeps_one_ring() -> None:
    found = {queue.name: queue for queue in queues()}
    # What beat asks for is no ring, and gives way to none.
    chores = found.pop("mailgate.chores")
    assert chores.queue_arguments == {"x-queue-type": "classic"}
    assert list(found) == ["mailgate.high", "mailgate.normal", "mailgate.bulk"]
    for queue in found.values():
        assert queue.durable
        assert queue.queue_arguments == {
            "x-queue-type": "classic",
            "x-max-length": 1,
            "x-overflow": "drop-head",
        }


def test_rings_are_routed_by_lane() -> None:
    assert route(TASK, ["bulk"], {}, {}) == {"queue": "mailgate.bulk"}
    assert route(TASK, [], {"lane": "high"}, {}) == {"queue": "mailgate.high"}
    assert route(CLEAN, [], {}, {}) == {"queue": "mailgate.chores"}
    assert route("celery.backend_cleanup", [], {}, {}) is None
    with pytest.raises(ValueError, match="not a valid Lane"):
        route(TASK, ["urgent"], {}, {})


def test_a_ring_goes_to_its_lane_whoever_publishes_it() -> None:
    with Celery("rings", set_as_current=False) as app:
        app.add_defaults(lambda: settings("memory://"))
        with app.connection_for_write() as connection:
            for lane in Lane:
                app.send_task(TASK, [lane.value], connection=connection, ignore_result=True)
            channel = connection.default_channel
            app.send_task(CLEAN, [], connection=connection, ignore_result=True)
            rings = queues()
            assert rings[-1](channel).get(no_ack=True).headers["task"] == CLEAN
            for queue in rings[:-1]:
                got = queue(channel).get(no_ack=True)
                assert got is not None
                assert got.payload[0] == [queue.name.removeprefix("mailgate.")]


def test_rediss_verifies_unless_its_url_says_otherwise() -> None:
    found = broker_settings("rediss://:pw@broker:6380/1", 60)
    strict = Connection(found["broker_url"], ssl=found["broker_use_ssl"])
    assert strict.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    lax = broker_settings("rediss://broker?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem", 60)
    assert Connection(lax["broker_url"], ssl=lax["broker_use_ssl"]).ssl == {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_ca_certs": "/ca.pem",
    }


def test_amqps_verifies_chain_and_the_name_of_each_host() -> None:
    found = broker_settings("amqps://u:p@one/v?ssl_ca_certs=/ca.pem;amqps://u:p@two/v", 60)
    assert found["broker_url"] == "amqps://u:p@one/v;amqps://u:p@two/v"
    url, tls = found["broker_url"], found["broker_use_ssl"]
    connection: Any = Connection(url, ssl=tls, connect_timeout=0.01)
    assert dict(connection.ssl) == {
        "ca_certs": "/ca.pem",
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": None,
    }
    # kombu fills in the name at each connect; none of the two may keep the other's.
    for host in ("one", "two", "one"):
        assert connection.hostname == host
        with pytest.raises(OSError):
            connection.transport.establish_connection()
        assert dict(connection.ssl)["server_hostname"] == host
        connection.maybe_switch_next()


def test_amqps_without_verification_has_to_be_asked_for() -> None:
    found = broker_settings("amqps://broker/?ssl_cert_reqs=none", 60)
    assert found["broker_use_ssl"] == {"cert_reqs": ssl.CERT_NONE}


def test_sentinel_hosts_are_asked_for_the_named_group() -> None:
    found = broker_settings("sentinel://:pw@a:26379/1?master=mail;sentinel://b:26379/1", 60)
    assert found["broker_url"] == "sentinel://:pw@a:26379/1;sentinel://b:26379/1"
    assert found["broker_transport_options"]["master_name"] == "mail"
    other = broker_settings("sentinel://a", 60)
    assert other["broker_transport_options"]["master_name"] == "mymaster"


def test_a_socket_and_several_hosts_stay_as_they_are() -> None:
    for url in ("redis+socket:///run/v.sock?virtual_host=2", "redis://a;redis://b"):
        assert broker_settings(url, 60)["broker_url"] == url


def test_importing_the_app_reads_no_configuration() -> None:
    code = (
        "from mailgate.worker.celery_app import app; assert not app.configured; "
        "assert 'mailgate.gateway' not in __import__('sys').modules"
    )
    broken = {**os.environ, "MAILGATE_CONFIG": "/nowhere/mailgate.toml"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=broken, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_async_def_is_refused_as_a_task() -> None:
    with Celery("plain", task_cls=PlainTask, set_as_current=False) as app:

        async def never_runs() -> None: ...

        with pytest.raises(TypeError, match="Celery never runs an async def"):
            app.task(lazy=False, shared=False)(never_runs)

        def runs() -> int:
            return 1

        assert app.task(lazy=False, shared=False)(runs)() == 1


def test_a_ring_is_what_celery_would_send() -> None:
    app = Celery("rings", set_as_current=False)
    app.add_defaults(
        lambda: celery_settings(Config.model_validate({"broker": {"url": "redis://h/0"}}))
    )
    args = {"args": ["high"], "kwargs": {}, "ignore_result": True, "origin": "me@here"}
    sent = app.amqp.as_task_v2("one", "mailgate.deliver", **args)
    assert ring(Lane.HIGH, "one", "me@here") == (sent.headers, sent.body)
    assert sent.properties == {"correlation_id": "one", "reply_to": ""}
