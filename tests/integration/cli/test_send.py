"""``mailgate send`` publishes as any producer does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from mailgate.intake.doors import open_doors
from tests.integration.cli.conftest import Shell
from tests.servers import Valkey, Vhost

MAIL = ("send", "--to", "ann@example.com", "--template", "welcome")


def received(url: str) -> list[dict[str, Any]]:
    async def take() -> list[dict[str, Any]]:
        [door, *_] = open_doors(url, "mailgate.inbox")
        await door.open()
        found = await door.receive(10, 0.2)
        await door.done(found)
        await door.close()
        return [json.loads(d.body) for d in found]

    return asyncio.run(take())


def test_what_is_sent_arrives_and_has_a_key(shell: Shell, valkey: Valkey, tmp_path: Path) -> None:
    shell.environment["MAILGATE_BROKER__URL"] = valkey.broker_url
    assert shell(*MAIL).out.startswith("published on mailgate:inbox ")
    command = tmp_path / "cancel.json"
    command.write_text('{"producer": "shop", "cancel": {"id": "order-1"}}')
    assert shell("send", "--file", str(command)).code == 0
    mail, cancel = received(valkey.broker_url)
    assert (mail["to"], len(mail["idempotency_key"])) == (["ann@example.com"], 32)
    assert cancel.keys() == {"producer", "cancel", "id"}


def test_a_queue_that_is_not_there_is_an_error(shell: Shell, rabbitmq: Vhost) -> None:
    shell.environment["MAILGATE_BROKER__URL"] = rabbitmq.url
    said = shell(*MAIL)
    assert said.code == 1
    assert "has mailgate been started on this broker?" in said.err
    assert received(rabbitmq.url) == []  # which makes the queue
    assert shell(*MAIL).code == 0
    assert len(received(rabbitmq.url)) == 1


def test_a_broker_that_is_away_is_one_error(shell: Shell) -> None:
    said = shell(*MAIL)
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "the broker did not take it" in said.err
