"""Real workers over real brokers, started and ended by the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailgate.config.shape import Config
from mailgate.model.state import Lane
from mailgate.worker.doorbell import Doorbell

_ROOT = Path(__file__).parents[3]


class Site:
    """A directory that ``app.BookKeeper`` reads and writes, and the programs run there."""

    def __init__(self, directory: Path, broker_url: str) -> None:
        self.directory = directory
        self.broker_url = broker_url
        self.config = Config.model_validate({"broker": {"url": broker_url}})
        (directory / "due").mkdir()
        (directory / "book").touch()
        self._running: list[Program] = []

    def say(self, word: str, value: str = "") -> float:
        """Tell the gateways something (see ``app``); returns when."""
        new = self.directory / f"{word}.new"
        new.write_text(value)
        new.rename(self.directory / word)
        return time.time()

    def unsay(self, word: str) -> None:
        (self.directory / word).unlink()

    def book(self, event: str, **more: object) -> list[dict[str, Any]]:
        """What gateways wrote, of one kind, where also ``more`` holds."""
        entries = map(json.loads, (self.directory / "book").read_text().splitlines())
        wanted = {"event": event, **more}.items()
        return [entry for entry in entries if wanted <= entry.items()]

    def wait_for(
        self, event: str, count: int = 1, timeout: float = 15, **more: object
    ) -> list[dict[str, Any]]:
        """The entries of a kind once there are ``count`` of them."""
        until(
            lambda: len(self.book(event, **more)) >= count,
            f"{count} times {event}",
            timeout,
            self.logs,
        )
        return self.book(event, **more)

    def start(
        self, program: str, settings: dict[str, Any] | None = None, **options: Any
    ) -> Program:
        """Run ``worker``, ``beat`` or ``flower`` as ``worker.command`` does.

        ``celery`` is a worker as whoever knows Celery starts it.
        """
        log = self.directory / f"{program}-{len(self._running)}.log"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAILGATE_", "FLOWER_"))}
        env = kept | {
            "PYTHONPATH": str(_ROOT),
            # That we are root, and that two workers have one name, is meant.
            "PYTHONWARNINGS": "error,ignore::UserWarning:celery.platforms,"
            "ignore::UserWarning:kombu.pidbox",
            "WORKER_TEST_DIRECTORY": str(self.directory),
            "WORKER_TEST_SETTINGS": json.dumps(settings or {}),
            "MAILGATE_BROKER__URL": self.broker_url,
            "MAILGATE_WORKER__DEADLINE": "2s",
        }
        module = "tests.integration.worker.app"
        if program == "celery":
            command = ["celery", "-A", module, "worker", "--concurrency=2", "--loglevel=info"]
        else:
            command = [module, program, json.dumps(options)]
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.directory,
                env=env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(Program(process, log))
        return self._running[-1]

    def worker(
        self, processes: int = 1, *, program_name: str = "worker", **options: Any
    ) -> Program:
        """A worker that is ready, with its gateways open."""
        before = len(self.book("start"))
        options.setdefault("concurrency", processes)
        program = self.start(program_name, **options)
        self.wait_for("start", before + processes)
        until(lambda: "ready." in program.log.read_text(), "a worker", 15, self.logs)
        return program

    def logs(self) -> str:
        return "\n".join(f"== {p.log.name}\n{p.log.read_text()}" for p in self._running)

    def end(self) -> None:
        for program in self._running:
            program.kill()


class Program:
    """One of our programs with its children and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """A signal, and the wait for the end; returns the exit code and the seconds it took."""
        begin = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(30), time.monotonic() - begin

    def kill(self) -> None:
        if self.running:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def until(
    true: Callable[[], object], what: str, timeout: float = 15, logs: Callable[[], str] = str
) -> None:
    """Wait until ``true()``; fails with the logs after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not true():
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout:g} s for {what}\n{logs()}")
        time.sleep(0.02)


@pytest.fixture(params=["valkey", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each broker in turn, empty."""
    broker = request.getfixturevalue(request.param)
    return str(broker.broker_url if request.param == "valkey" else broker.url)


@pytest.fixture
def site_of(tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Programs over the broker of that URL; ended after the test."""
    made: list[Site] = []

    def make(url: str) -> Site:
        made.append(Site(tmp_path, url))
        return made[-1]

    yield make
    for site in made:
        site.end()


@pytest.fixture
def site(site_of: Callable[[str], Site], broker_url: str) -> Site:
    """Programs over each broker in turn."""
    return site_of(broker_url)


@pytest.fixture
def valkey_site(site_of: Callable[[str], Site], valkey: Any) -> Site:
    """Programs over Valkey alone, where the broker makes no difference."""
    return site_of(valkey.broker_url)


@pytest.fixture
def doorbell_of() -> Iterator[Callable[[Config], Doorbell]]:
    """Makes doorbells as another process would have them; hangs them up at the end."""
    made: list[Doorbell] = []

    def make(config: Config) -> Doorbell:
        made.append(Doorbell(config))
        return made[-1]

    yield make
    for doorbell in made:
        doorbell.close()


def due(lane: Lane) -> str:
    """The word that makes something due in a lane."""
    return f"due/{lane.value}"
