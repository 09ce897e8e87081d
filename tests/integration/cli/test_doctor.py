"""``mailgate doctor`` over real servers: what is wrong is found, named, and never told on."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest
import typer

from mailgate.cli import doctor
from mailgate.config.load import load
from mailgate.delivery.watermark import Watermark
from mailgate.operations import doctor as room
from mailgate.operations.doctor import Patient, examine
from mailgate.operations.verdicts import Finding, Level
from tests.contract.journal.rig import Rig
from tests.integration.cli.conftest import Shell
from tests.integration.smtp.conftest import authority  # noqa: F401 - a fixture by name
from tests.integration.smtp.scripted import ScriptedRelay
from tests.servers import Valkey, Vhost


@pytest.fixture
def relay_at() -> Iterator[Callable[[ScriptedRelay], int]]:
    """``relay_at(relay)`` serves it on a loop of its own (the command has one too): its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    begun: list[ScriptedRelay] = []

    def begin(relay: ScriptedRelay) -> int:
        asyncio.run_coroutine_threadsafe(relay.__aenter__(), loop).result(5)
        begun.append(relay)
        return relay.port

    yield begin
    for relay in begun:
        asyncio.run_coroutine_threadsafe(relay.__aexit__(None, None, None), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(autouse=True)
def _process_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a check may take too long, and the program would end: this one."""

    def leave(code: int) -> None:
        raise typer.Exit(code)

    monkeypatch.setattr(doctor, "_leave", leave)


def findings(shell: Shell, check: str) -> list[dict[str, Any]]:
    items = shell("doctor", check, "--json").document["items"]
    return [item for item in items if item["check"] == check]


def test_all_is_well(shell: Shell, valkey: Valkey, relay_at: Callable[..., int]) -> None:
    relay = ScriptedRelay()
    shell.environment["MAILGATE_RELAYS__MAIN__PORT"] = str(relay_at(relay))
    shell.environment["MAILGATE_BROKER__URL"] = valkey.broker_url
    with valkey.client() as client:
        client.config_set("appendonly", "yes")
    try:
        said = shell("doctor", "--json")
        document = said.document
    finally:
        with valkey.client() as client:
            client.config_set("appendonly", "no")
    assert (said.code, said.err) == (0, "")
    assert document["faults"] == 0
    checks = {item["check"] for item in document["items"]}
    for name in ("broker", "journal", "limiter", "disk", "templates", "versions", "clock"):
        assert name in checks
    wrong = {item["check"] for item in document["items"] if item["level"] != "ok"}
    # The last two say that the machine which tests is full or busy.
    assert wrong <= {"workers", "disk", "templates"}, wrong
    [seen] = [item for item in document["items"] if item["check"] == "relay main"]
    assert [step["step"] for step in seen["steps"]] == ["connect", "greeting", "ehlo"]
    assert relay.heard[0].verbs == ["EHLO", "QUIT"], "nothing about mail"


def test_a_dead_broker_is_a_fault_and_no_password_is_shown(shell: Shell) -> None:
    shell.environment["MAILGATE_BROKER__URL"] = "redis://gate:geheim@127.0.0.1:1/0"
    shell.environment["MAILGATE_RELAYS__MAIN__PORT"] = "1"
    said = shell("doctor", "broker", "limiter", "relay")
    assert said.code == 1
    assert "cannot be reached at redis://gate:***@127.0.0.1:1/0" in said.out
    assert "geheim" not in said.out + said.err
    assert said.out.count("-> ") == 3, "each says what to do"
    assert said.out.endswith("3 findings, 3 faults, 0 warnings\n")
    shell.environment["MAILGATE_BROKER__URL"] = "amqp://gate:geheim@127.0.0.1:1//"
    [broker] = findings(shell, "broker")
    assert broker["level"] == "fault"
    assert "amqp://gate:***@127.0.0.1:1" in broker["found"]


def test_a_redis_that_evicts_is_a_fault(shell: Shell, valkey: Valkey) -> None:
    shell.environment["MAILGATE_BROKER__URL"] = valkey.broker_url
    with valkey.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = findings(shell, "broker")
    finally:
        with valkey.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
    assert [item["level"] for item in found] == ["ok", "fault", "warn"]
    assert found[1]["advice"] == "set maxmemory-policy noeviction on the server"


def test_a_rabbitmq_and_the_kind_of_its_queue(shell: Shell, rabbitmq: Vhost) -> None:
    shell.environment["MAILGATE_BROKER__URL"] = rabbitmq.url
    answers, queue = findings(shell, "broker")
    assert answers["found"].startswith("RabbitMQ ")
    assert "intake makes it" in queue["found"]
    assert rabbitmq.api("GET", "/api/queues/{vhost}") == [], "to look makes no queue"
    for kind, level in (("classic", "warn"), ("quorum", "ok")):
        with kombu.Connection(rabbitmq.url) as connection, connection.channel() as channel:
            channel.queue_delete("mailgate.inbox")  # type: ignore[attr-defined]
            channel.queue_declare(  # type: ignore[attr-defined]
                "mailgate.inbox",
                durable=True,
                auto_delete=False,
                arguments={"x-queue-type": kind, "x-max-length": 1000},
            )
        _, queue = findings(shell, "broker")
        assert (queue["level"], kind) == (level, kind), queue


def test_a_journal_that_is_behind(shell: Shell, journal: Rig) -> None:
    journal.database.run_now(
        lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    )
    [_, behind] = findings(shell, "journal")
    assert behind["level"] == "fault"
    assert behind["advice"] == "run mailgate db upgrade"


def test_a_journal_that_was_restored(shell: Shell, journal: Rig, tmp_path: Any) -> None:
    (tmp_path / "state").mkdir()
    mark = Watermark(tmp_path / "state")
    journal.database.run_now(lambda c: mark.reach(c, 1000))
    mark.keep(2000)  # as if what the journal knew of it had been lost
    said = shell("doctor", "journal")
    assert said.code == 1
    assert "run mailgate db restored" in said.out
    assert shell("db", "restored").code == 0
    assert "db restored" not in shell("doctor", "journal").out


def test_a_journal_that_is_not_there_is_not_made(shell: Shell, tmp_path: Any) -> None:
    shell.environment["MAILGATE_JOURNAL__URL"] = f"sqlite:///{tmp_path}/none.db"
    [away] = findings(shell, "journal")
    assert (away["level"], away["advice"]) == ("fault", "run mailgate db upgrade")
    assert not (tmp_path / "none.db").exists()


def test_a_relay_with_the_certificate_of_another(
    shell: Shell,
    relay_at: Callable[..., int],
    authority: Any,  # noqa: F811
) -> None:
    port = relay_at(ScriptedRelay(starttls=authority.server("other.example")))
    shell.environment |= {
        "MAILGATE_RELAYS__MAIN__PORT": str(port),
        "MAILGATE_RELAYS__MAIN__SECURITY": "starttls",
        "MAILGATE_RELAYS__MAIN__CA_FILE": str(authority.file),
    }
    [item] = findings(shell, "relay main")
    assert item["level"] == "fault"
    assert "failed at starttls: tls_certificate" in item["found"]
    assert "ca_file" in item["advice"]


def test_a_password_that_cannot_be_had_is_one_fault_among_others(shell: Shell) -> None:
    shell.environment |= {
        "MAILGATE_RELAYS__MAIN__SECURITY": "starttls",
        "MAILGATE_RELAYS__MAIN__USERNAME": "gate",
        "MAILGATE_RELAYS__MAIN__PASSWORD_ENV": "NOT_SET_ANYWHERE",
    }
    levels = {item["found"]: item["level"] for item in findings(shell, "configuration")}
    [(_, level)] = [one for one in levels.items() if "NOT_SET_ANYWHERE" in one[0]]
    assert level == "fault"
    [relay] = findings(shell, "relay main")
    assert relay["level"] == "fault"


def test_a_broken_template_and_a_full_disk_and_a_silent_relay(
    shell: Shell, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "built_in_root", lambda: tmp_path / "own")
    folder = tmp_path / "own" / "bad"
    folder.mkdir(parents=True)
    (folder / "template.toml").write_text("nonsense")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {
            **shell.environment,
            "MAILGATE_TEMPLATES__PATH": str(tmp_path / "own"),
            "MAILGATE_RELAYS__MAIN__PORT": str(silent.getsockname()[1]),
        }
        config = load(None, {k: v for k, v in environ.items() if k != "TERM"}, cwd=tmp_path)
        begun = time.monotonic()
        report = examine(
            Patient(config, config, "journal", {}),
            ("relay main", "templates", "disk"),
            patience=3.0,
            free=lambda _place: 10_000_000,
        )
        assert time.monotonic() - begun < 6
    found = {f.check: f for f in report.findings if f.level is Level.FAULT}
    assert "failed at greeting" in found["relay main"].found
    assert "bad is broken" in found["templates"].found
    assert "free some space now" in found["disk"].advice


def test_after_a_check_that_hung_the_program_ends_at_once(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    never = threading.Event()

    def hang() -> list[Finding]:
        never.wait(30)
        return []

    report = room.run({"dns": hang}, 0.0)
    never.set()
    monkeypatch.setattr(doctor, "_leave", ended.append)
    monkeypatch.setattr(room, "examine", lambda *_: report)
    assert shell("doctor").code == 1
    assert ended == [1]


def test_a_check_that_is_not_there_is_wrong_usage(shell: Shell) -> None:
    said = shell("doctor", "brokr")
    assert said.code == 2
    assert said.err.startswith("mailgate: there is no check brokr; there are: configuration, ")


def test_the_queues_of_producers_are_looked_at_too(
    shell: Shell, valkey: Valkey, rabbitmq: Vhost
) -> None:
    shell.environment["MAILGATE_PRODUCERS__SHOP__QUEUE"] = "shop.mail"
    shell.environment["MAILGATE_BROKER__URL"] = valkey.broker_url
    with valkey.client() as client:
        client.xadd("shop:mail", {"message": "{}"})
    said = [item["found"] for item in findings(shell, "broker")]
    assert "shop:mail of shop: 1 wait in it" in said
    assert "shop:mail:list of shop: 0 wait in it" in said
    shell.environment["MAILGATE_BROKER__URL"] = rabbitmq.url
    last = findings(shell, "broker")[-1]["found"]
    assert last == "there is no queue shop.mail yet; intake makes it (of shop)"
