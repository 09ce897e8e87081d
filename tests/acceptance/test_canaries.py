"""What nobody may read by the way: an address, a subject, a body, data and a password.

They go through acceptance, deferral, bounce, template errors and a refused login, and are
then looked for in everything that a process writes or shows unasked.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from typer.testing import CliRunner

from mailgate.cli.main import app
from tests.servers.process import free_port

MAILGATE = [sys.executable, "-m", "mailgate.cli.main"]
#: Words that stand nowhere else.
ADDRESS, SUBJECT, BODY, DATA, PASSWORD = (
    *("zebrafinch", "quokkasubject", "numbatbody", "bilbydata", "wombatpassword"),
)
CANARIES = (ADDRESS, SUBJECT, BODY, DATA, PASSWORD)

_TEMPLATES = {
    # Both fail while they render, over a value of the data.
    "baddate": "{{ secret|date }}",
    "badkey": "{{ holder[secret].more }}",
}
_SCHEMA = {"type": "object", "properties": {"secret": {"type": "string"}, "holder": {}}}


class Relay:
    """Refuses by address, quoting it, as relays do."""

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if ".defer@" in address:
            return f"451 4.2.0 <{address}>: greylisted"
        if ".bounce@" in address:
            return f"550 5.1.1 <{address}>: no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, *_: Any) -> str:
        return "250 2.0.0 Taken"


class Site:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAILGATE_", "FLOWER_"))}
        self.environ = kept | {"CANARY_PASSWORD": PASSWORD, "COLUMNS": "400"}
        self._running: list[subprocess.Popen[bytes]] = []

    def begin(self, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.directory / f"program-{len(self._running)}.out"
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [*MAILGATE, *arguments],
                cwd=self.directory,
                env=self.environ,
                stdout=out,
                stderr=out,
            )
        self._running.append(process)
        return process, log

    def run(self, line: str) -> str:
        # In this process: some forty commands, each of which would first load mailgate.
        with contextlib.chdir(self.directory):
            done = CliRunner().invoke(app, line.split(), env=self.environ)
        assert done.exit_code in (0, 1), f"{line}\n{done.output}"
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.stdout + ("" if "--json" in line else done.stderr)

    def items(self, line: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run(f"{line} --json"))["items"]
        return found

    def publish(self, **message: Any) -> None:
        with redis.Redis(unix_socket_path=str(self.directory / ".mailgate/valkey.sock")) as client:
            client.xadd("mailgate:inbox", {"message": json.dumps(message)})

    def logs(self) -> dict[str, str]:
        paths = [*self.directory.glob("*.out"), *(self.directory / ".mailgate/logs").glob("*.log")]
        return {path.name: path.read_text(errors="replace") for path in paths}

    def end(self) -> None:
        for process in reversed(self._running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def _until(holds: Callable[[], object], seconds: float, say: Callable[[], object] = str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, say()
        time.sleep(0.1)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    plain, locked = free_port(), free_port()
    relays = [
        Controller(Relay(), hostname="127.0.0.1", port=plain),
        Controller(
            Relay(),
            hostname="127.0.0.1",
            port=locked,
            tls_context=tls,
            require_starttls=True,
            authenticator=lambda *_: AuthResult(success=False, handled=False),
        ),
    ]
    for name, html in _TEMPLATES.items():
        folder = tmp_path / "templates" / name
        folder.mkdir(parents=True)
        (folder / "template.toml").write_text(
            f'name = "{name}"\nversion = 1\ndescription = "breaks"\ncategory = "notice"\n'
            'default_locale = "en"\ntext = "derived"\n'
        )
        (folder / "en.subject").write_text("Hello\n")
        page = '{% extends "_layouts/base.html" %}{% block content %}<p>X</p>{% endblock %}'
        (folder / "en.html").write_text(page.replace("X", html))
        (folder / "context.schema.json").write_text(json.dumps(_SCHEMA))
    shows = {kind: f"127.0.0.1:{free_port()}" for kind in ("intake", "worker", "beat")}
    (tmp_path / "mailgate.toml").write_text(
        f"""
        [templates]
        path = ["templates"]
        [metrics]
        {chr(10).join(f'{kind} = "{where}"' for kind, where in shows.items())}
        [relays.main]
        host = "127.0.0.1"
        port = {plain}
        security = "none"
        [relays.locked]
        host = "127.0.0.1"
        port = {locked}
        security = "starttls"
        ca_file = "ca.pem"
        username = "gate"
        password_env = "CANARY_PASSWORD"
        [streams.transactional]
        from = "Example <noreply@example.com>"
        relays = ["main"]
        [streams.bulk]
        from = "Example <noreply@example.com>"
        relays = ["locked"]
        """.replace("\n        ", "\n")
    )
    for relay in relays:
        relay.start()
    made = Site(tmp_path)
    made.environ["SHOWS"] = json.dumps(shows)
    try:
        yield made
    finally:
        made.end()
        for relay in relays:
            relay.stop()


def _found(text: str) -> list[str]:
    return [word for word in CANARIES if word in text.lower()]


@pytest.mark.timeout(240)
def test_no_canary_is_read_in_logs_metrics_flower_or_commands(site: Site) -> None:
    up, log = site.begin("--log-format", "json", "--log-level", "debug", "up")
    _until(lambda: up.poll() is not None or "is up" in log.read_text(), 60, log.read_text)
    shows = json.loads(site.environ["SHOWS"])
    port = free_port()
    site.begin("flower", "--port", str(port), "--basic-auth", f"ann:{PASSWORD}")
    flower = f"http://127.0.0.1:{port}"
    auth = ("ann", PASSWORD)

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{flower}/api/tasks", auth=auth).status_code == 200
        return False

    _until(answers, 30)

    said = {"subject": f"about {SUBJECT}", "text": f"the {BODY}"}
    for way in ("sent", "defer", "bounce"):
        site.publish(to=f"{ADDRESS}.{way}@example.com", **said)
    site.publish(to=f"{ADDRESS}.locked@example.com", stream="bulk", **said)
    for template in _TEMPLATES:
        data = {"secret": DATA, "holder": {}}
        site.publish(to=f"{ADDRESS}.held@example.com", template=template, data=data)
    site.publish(to=f"{ADDRESS} at example.com", **said)
    site.publish(to=f"{ADDRESS}@example.com", template="notice", data={"title": DATA, "more": DATA})
    site.publish(to=f"{ADDRESS}@example.com", **said, send_at=BODY)

    def settled() -> bool:
        states = [i["state"] for i in site.items("messages list")]
        wanted = {"sent": 1, "deferred": 1, "bounced": 1, "held": 2}
        enough = all(states.count(state) == number for state, number in wanted.items())
        return enough and len(site.items("parked list")) == 3

    _until(settled, 40, lambda: site.run("messages list") + site.run("parked list"))
    _until(lambda: "locked" in site.logs()["worker.log"], 20)

    def counted() -> bool:
        """Each process writes its numbers down once a second, beat looks less often."""
        told = {k: httpx.get(f"http://{w}/metrics", timeout=10).text for k, w in shows.items()}
        return all(re.search(number, told[kind]) for kind, number in _NUMBERS)

    _until(counted, 40)

    shown: dict[str, str] = dict(site.logs())
    for kind, where in shows.items():
        pages = {page: httpx.get(f"http://{where}{page}", timeout=10) for page in _PAGES}
        assert [reply.status_code for reply in pages.values()] == [200] * 3, kind
        shown |= {f"{kind}{page}": reply.text for page, reply in pages.items()}
    for page in ("/api/tasks", "/api/workers", "/tasks", "/"):
        shown[f"flower{page}"] = httpx.get(flower + page, auth=auth, timeout=10).text
    assert "mailgate.deliver" in shown["flower/api/tasks"]
    ids = [item["id"] for item in site.items("messages list")]
    lines = [f"messages show {id_}" for id_ in ids] + ["messages list", "failures list"]
    lines += [f"parked show {item['id']}" for item in site.items("parked list")]
    lines += ["parked list", "status", "config show", "config check", "relays list"]
    lines += ["failures show unknown_address", "suppressions list"]
    for line in lines:
        shown[line] = site.run(line)
        if line not in ("config check", "config show"):
            shown[f"{line} --json"] = site.run(f"{line} --json")
    assert {name: found for name, text in shown.items() if (found := _found(text))} == {}

    # Not for want of mail: whoever asks is shown, and the numbers are there.
    assert f"{ADDRESS}.sent@example.com" in site.run("messages list --show-personal-data")
    text = shown["worker/metrics"]
    for kind, number in _NUMBERS:
        assert re.search(number, shown[f"{kind}/metrics"]), number
    for name in ("intake.log", "worker.log"):
        records = [line for line in shown[name].splitlines() if line.startswith("{")]
        assert records
        assert all(isinstance(json.loads(line), dict) for line in records)
    counts = _settled(text)
    _a_killed_child_takes_no_settled_count_with_it(site, shows["worker"], counts)


_NUMBERS = [
    *(
        ("worker", rf'mailgate_settled_total{{[^}}]*state="{state}"}} [1-9]')
        for state in ("sent", "deferred", "bounced", "held")
    ),
    ("intake", r'mailgate_deliveries_total{result="accepted"} 6\.0'),
    ("intake", r'mailgate_deliveries_total{result="parked"} 3\.0'),
    ("beat", r'mailgate_unresolved{state="held"} 2\.0'),
]
_PAGES = ("/metrics", "/health/live", "/health/ready")


def _settled(page: str) -> float:
    return sum(float(n) for n in re.findall(r"^mailgate_settled_total\S* (\S+)$", page, re.M))


def _a_killed_child_takes_no_settled_count_with_it(site: Site, where: str, before: float) -> None:
    killed, *others = (w["pid"] for w in json.loads(site.run("status --json"))["workers"])
    os.kill(killed, signal.SIGKILL)

    def page() -> str:
        text = httpx.get(f"http://{where}/metrics", timeout=10).text
        # Also while nobody stands in for it, which may last for less than a look takes.
        assert _settled(text) >= before
        return text

    def replaced() -> bool:
        """The killed child's numbers are taken in, and another child has hung out its own."""
        page()
        board = (site.directory / ".mailgate/metrics").glob("worker-*/*.json")
        shown = {int(path.stem) for path in board}
        return killed not in shown and bool(shown - {*others})

    _until(replaced, 30, page)
    # Two, not three: of the killed child nothing but its counts is left.
    assert "mailgate_worker_processes 2.0" in page()
    assert httpx.get(f"http://{where}/health/ready", timeout=10).status_code == 200
