"""The configurations of ``examples/brokers`` with real servers, the first of two of them killed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.acceptance.conftest import Setting
from tests.acceptance.stage import Stage, mails, publish_stream, until
from tests.acceptance.stage.relay import busiest
from tests.servers import RabbitMQ, Valkey

EXAMPLES = Path(__file__).parents[2] / "examples" / "brokers"


def said(name: str, ports: dict[str, int], relay: str = "sink") -> dict[str, str]:
    """The example's keys as a stage takes them, its servers' ports replaced by ours."""
    found = tomllib.loads((EXAMPLES / name).read_text())
    keys: dict[str, str] = {}
    for section in ("broker", "intake", "limiter"):
        if section in found:
            url = found[section]["url"]
            for theirs, ours in ports.items():
                url = url.replace(theirs, f"127.0.0.1:{ours}")
            keys[f"{section}.url"] = url
    if rate := found["relays"]["main"].get("rate"):
        keys[f"relays.{relay}.rate"] = rate
    return keys


@pytest.fixture
def two(server_directory: Path) -> Iterator[tuple[Valkey, Valkey]]:
    """Two servers with different passwords; each holds nothing."""
    first = Valkey(server_directory / "first")
    second = Valkey(server_directory / "second")
    for server, password in ((first, "s3cret/pass"), (second, "0ther")):
        with server.client() as client:
            client.config_set("requirepass", password)
    yield first, second
    for server in (first, second):
        if server.running:
            server.kill()


def publish(url: str, documents: list[dict[str, Any]]) -> None:
    with redis.Redis.from_url(url) as client:
        publish_stream(client, documents)


def test_the_second_server_begins_empty_and_no_limit_is_reset(
    stage: Setting, two: tuple[Valkey, Valkey], figure: Any
) -> None:
    first, second = two
    settings = said(
        "redis-failover.toml", {"127.0.0.1:6379": first.port, "127.0.0.1:6380": second.port}
    )
    here, there = settings["intake.url"].split(";")
    scene: Stage = stage("valkey", "sqlite", settings=settings)
    documents = mails(160)
    publish(here, documents[:80])
    intake, worker = scene.intake(), scene.worker(2)
    scene.wait_accepted(80)
    until(lambda: len(scene.relay.book()) >= 30, 30, scene.logs)
    first.kill()
    publish(there, documents[80:])
    took = until(lambda: scene.journal.accepted() >= 160, 60, scene.logs)
    scene.wait_finished(160)
    times = [copy.mail_at for copy in scene.relay.book()]
    figure(seconds_to_consume_again=round(took, 1), fullest=busiest(times, 2.0))
    assert busiest(times, 2.0) <= 40
    account = scene.account(documents)
    assert account.clean, account
    assert (account.states, account.uncertain) == ({"sent": 160}, 0)
    assert intake.running
    assert worker.running
    assert "s3cret" not in scene.run("config", "show").stdout


def test_redis_with_a_password_and_a_database_number(
    stage: Setting, two: tuple[Valkey, Valkey]
) -> None:
    settings = said("redis.toml", {"127.0.0.1:6379": two[0].port})
    scene: Stage = stage("valkey", "sqlite", settings=settings)
    scene.intake()
    scene.worker(1)
    publish(settings["broker.url"], mails(5))
    scene.wait_finished(5)
    assert len(scene.relay.taken()) == 5


def test_rabbitmq_with_a_virtual_host(stage: Setting, rabbitmq_server: RabbitMQ) -> None:
    if not rabbitmq_server.running:
        rabbitmq_server.start()
    vhost = rabbitmq_server.fresh_vhost()
    settings = said("rabbitmq.toml", {"127.0.0.1:5672": rabbitmq_server.port})
    # The example's user and virtual host have names; ours are made for the test.
    settings["broker.url"] = vhost.url
    scene: Stage = stage("rabbitmq", "sqlite", settings=settings)
    scene.broker = vhost.url
    scene.intake()
    scene.worker(1)
    scene.publish(mails(5))
    scene.wait_finished(5)
    assert len(scene.relay.taken()) == 5
    rabbitmq_server.drop(vhost)
