"""Every service of deploy/compose.yaml, run by hand against real servers.

No container runs here. Everything else is the files' own: the commands, the variables of
image and services, the secrets, the configuration, the probe, the time to stop.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.stage.load import publish_amqp
from tests.acceptance.stage.proc import Program
from tests.acceptance.stage.stage import until
from tests.servers import Valkey, Vhost
from tests.servers.process import free_port
from tests.unit.deploy.said import (
    FOLDER,
    OURS,
    SERVICES,
    environment_of_the_image,
    instructions,
)

_MAILGATE = [sys.executable, "-m", "mailgate.cli.main"]


class Composed:
    """The services' processes; ``/run/secrets`` and the like are files of a directory."""

    def __init__(self, directory: Path, urls: dict[str, str]) -> None:
        self.directory = directory
        shutil.copytree(
            FOLDER / "compose", directory / "compose", ignore=shutil.ignore_patterns("secrets")
        )
        subprocess.run(["sh", directory / "compose" / "secrets.sh"], check=True)
        for name, url in urls.items():
            (directory / "compose" / "secrets" / name).write_text(url)
        (directory / "state").mkdir()
        self.ports = {name: free_port() for name in OURS}
        self.programs: dict[str, Program] = {}

    def environment(self, name: str) -> dict[str, str]:
        said = environment_of_the_image() | SERVICES[name]["environment"]
        del said["PATH"]
        moved = {
            "/run/secrets": str(self.directory / "compose" / "secrets"),
            "/etc/mailgate": str(self.directory / "compose"),
            "/var/lib/mailgate": str(self.directory / "state"),
            "0.0.0.0:9464": f"127.0.0.1:{self.ports[name]}",
        }
        for key, text in said.items():
            for there, here in moved.items():
                text = text.replace(there, here)
            said[key] = text
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAILGATE_", "FLOWER_"))}
        return kept | said | {"FLOWER_PORT": str(self.ports[name])}

    def start(self, name: str) -> None:
        self.programs[name] = Program(
            [*_MAILGATE, *SERVICES[name]["command"]],
            log=self.directory / f"{name}.log",
            env=self.environment(name) | {"PYTHONPATH": str(FOLDER.parent)},
            cwd=self.directory / "state",
        )

    def healthy(self, name: str) -> bool:
        """What the container's own health check says."""
        probe = SERVICES[name].get("healthcheck", {}).get("test")
        [url] = re.findall(
            r"http://[^\"]+", str(probe) if probe else instructions("HEALTHCHECK")[-1]
        )
        here = re.sub(r":\d+/", f":{self.ports[name]}/", url.rstrip("']"))
        command = [sys.executable, FOLDER / "probe.py", here]
        return subprocess.run(command, capture_output=True).returncode == 0

    def metrics(self, name: str) -> str:
        url = f"http://127.0.0.1:{self.ports[name]}/metrics"
        with urllib.request.urlopen(url, timeout=5) as page:
            return str(page.read().decode())

    def logs(self) -> str:
        return "\n".join(f"== {name}\n{p.tail(20)}" for name, p in self.programs.items())


@pytest.fixture
def composed(
    tmp_path: Path, rabbitmq: Vhost, valkey: Valkey, fresh_database: Callable[..., str]
) -> Iterator[Composed]:
    made = Composed(
        tmp_path,
        {"broker_url": rabbitmq.url, "journal_url": fresh_database(), "limiter_url": valkey.url},
    )
    yield made
    for program in made.programs.values():
        program.wipe_out()


def test_the_services_of_the_compose_file_do_their_work(
    composed: Composed, rabbitmq: Vhost
) -> None:
    composed.start("upgrade")
    assert composed.programs["upgrade"].wait(60) == 0, composed.logs()
    lasting = [name for name in OURS if name != "upgrade"]
    for name in lasting:
        composed.start(name)
    for name in lasting:
        if name not in ("beat", "flower"):  # these do not say when they are ready
            composed.programs[name].wait_ready(60)
    until(lambda: all(composed.healthy(name) for name in lasting), 60, composed.logs)

    notice = {"title": "Hello", "body": "It works."}
    publish_amqp(rabbitmq.url, [{"to": "ann@example.com", "template": "notice", "data": notice}])
    workers = [name for name in lasting if name.startswith("worker")]

    def captured() -> bool:
        return any('state="captured"' in composed.metrics(name) for name in workers)

    until(captured, 20, composed.logs)
    assert 'mailgate_deliveries_total{result="accepted"} 1.0' in composed.metrics("intake")
    assert "mailgate_journal_up 1.0" in composed.metrics("beat")

    for name in lasting:
        composed.programs[name].signal(signal.SIGTERM)
    for name in lasting:
        grace = SERVICES[name].get("stop_grace_period", "10s").removesuffix("s")
        assert composed.programs[name].wait(float(grace)) == 0, composed.logs()
    assert not composed.healthy("worker")
