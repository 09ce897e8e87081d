"""Every command of the operators' guide is run, in order, against a live gateway."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from aiosmtpd.controller import Controller

from tests.acceptance.stage.loaded import loaded
from tests.servers.process import free_port

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "operators.md"
MAILGATE = [sys.executable, "-m", "mailgate.cli.main"]


def commands(path: Path) -> list[str]:
    """The lines after ``$ mailgate`` in the guide's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("$ mailgate ") for line in lines)
    return [line.removeprefix("$ mailgate ") for line in lines]


class Refusing:
    """A relay that does not know nobody@example.com."""

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if address.startswith("nobody@"):
            return "550 5.1.1 No such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, *_: Any) -> str:
        return "250 2.0.0 Taken"


class Gateway:
    def __init__(self, directory: Path, relay_port: int) -> None:
        self.directory = directory
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("MAILGATE_")}
        (directory / "mailgate.toml").write_text(
            f'[relays.main]\nhost = "127.0.0.1"\nport = {relay_port}\nsecurity = "none"\n'
            '[streams.transactional]\nfrom = "Example <noreply@example.com>"\n'
            '[digests.comments]\nafter = "1d"\n',
            "utf-8",
        )
        self.log = directory / "up.out"
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                [*MAILGATE, "up"], cwd=directory, env=self.environ, stdout=out, stderr=out
            )
        self._until(lambda: "mailgate is up" in self.log.read_text(), 40)

    def _until(self, holds: Any, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def publish(self, **message: Any) -> None:
        path = str(self.directory / ".mailgate" / "valkey.sock")
        with redis.Redis(unix_socket_path=path) as client:
            client.xadd("mailgate:inbox", {"message": json.dumps(message)})

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        return loaded(ROOT).run(shlex.split(line), env=self.environ, cwd=self.directory)

    def items(self, line: str) -> list[dict[str, Any]]:
        done = self.run(f"{line} --json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return found

    def bounced(self) -> bool:
        """Whether the unknown recipient's mail is refused, and not on its way again."""
        return bool(self.items("messages list --state bounced"))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    port = free_port()
    relay = Controller(Refusing(), hostname="127.0.0.1", port=port)
    relay.start()
    started = Gateway(tmp_path, port)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.stop()
        relay.stop()


@pytest.mark.timeout(240)
def test_every_command_of_the_guide_does_what_it_says(gateway: Gateway) -> None:
    notice = {"title": "Hello", "body": "It works."}
    gateway.publish(to="ann@example.com", template="notice", data=notice)
    gateway.publish(to="nobody@example.com", template="notice", data=notice)
    later = "2099-01-01T00:00:00Z"
    gateway.publish(to="bob@example.com", template="notice", data=notice, send_at=later)
    digest = {"name": "comments", "key": "thread-17"}
    gateway.publish(to="ann@example.com", digest=digest, data={"text": "Bo wrote"})
    gateway.publish(to="bob@example.com", template="no_such_template")
    gateway.publish(to="bob@example.com", template="notice", data={"title": "no body"})
    gateway._until(lambda: gateway.bounced() and len(gateway.items("parked list")) == 2, 20)
    [waiting] = gateway.items("messages list --state queued")
    [failed] = gateway.items("failures show unknown_address")
    assert failed["recipient"] == "n***@example.com"
    spoilt, other = (item["id"] for item in gateway.items("parked list"))
    corrected = {"to": "bob@example.com", "template": "notice", "data": notice}
    (gateway.directory / "corrected.json").write_text(json.dumps(corrected), "utf-8")
    (gateway.directory / "list.csv").write_text("email\nfred@example.com\n", "utf-8")

    ran = 0
    for line in commands(GUIDE):
        ran += 1
        if line == "up":
            continue  # it is what all the others talk to
        if line == "flower":
            flower = subprocess.Popen(
                [*MAILGATE, "flower", "--port", "25555"],
                cwd=gateway.directory,
                env=gateway.environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(3)
            assert flower.poll() is None
            flower.terminate()
            flower.wait(20)
            continue
        expected = 0
        if line.startswith("messages cancel"):
            line = line.replace("MESSAGE", waiting["id"])
        elif line.startswith("parked discard"):
            line = line.replace("PARKED", other)
        elif line == "parked replay PARKED":
            line, expected = line.replace("PARKED", spoilt), 1  # nothing was mended yet
        line = line.replace("MESSAGE", failed["id"]).replace("PARKED", spoilt)
        if line == "dkim dns":
            named = '[dkim."example.com"]\nkeys = { mg2026 = "mg2026.pem" }\n'
            with open(gateway.directory / "mailgate.toml", "a") as file:
                file.write(named)
        if line.startswith("failures resend"):
            gateway._until(gateway.bounced, 20)
        done = gateway.run(line)
        assert done.returncode == expected, f"mailgate {line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
    assert ran > 25

    assert gateway.items("messages list --state cancelled")[0]["id"] == waiting["id"]
    story = gateway.run(f"messages show {failed['id']}").stdout
    assert "550" in story
    assert "relay mended" in story
    gateway._until(lambda: len(gateway.items("messages list --state sent")) == 4, 20)
    assert gateway.items("parked list") == []
    assert gateway.stop() == 0
    assert "mailgate has stopped" in gateway.log.read_text()
