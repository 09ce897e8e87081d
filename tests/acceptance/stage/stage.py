"""One gateway on a stage: its configuration, its processes, its relay.

Owns the environment that every command gets, waiting with a bound, and the end:
nothing that was started outlives the test.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from tests.acceptance.stage.books import Account, Journal, reckon
from tests.acceptance.stage.load import (
    Document,
    publish_amqp,
    publish_list,
    publish_stream,
    recipients,
    waiting_amqp,
)
from tests.acceptance.stage.loaded import loaded
from tests.acceptance.stage.proc import Kept, Program
from tests.acceptance.stage.relay import Relay

_MAILGATE = [sys.executable, "-m", "mailgate.cli.main"]
ROOT = Path(__file__).parents[3]


class Stage:
    """Broker and journal by URL. ``settings`` are keys: ``{"worker.lease": "3s"}``.

    ``program`` is the command line that stands for ``mailgate``.
    """

    def __init__(
        self,
        directory: Path,
        *,
        broker: str,
        journal: str,
        plans: Mapping[str, Sequence[str]] | None = None,
        settings: Mapping[str, str] | None = None,
        program: Sequence[str] = _MAILGATE,
    ) -> None:
        self._program = program
        self.directory = directory
        self.broker = broker
        self.relay = Relay(directory / "relay", plans)
        self.journal = Journal(journal)
        #: Where the journal is.
        self.url = journal
        self._started: list[Program] = []
        # Who keeps programs starts them from threads of their own.
        self._number = itertools.count()
        self._kept: list[Kept] = []
        said = {
            "state_dir": str(directory / "state"),
            "broker.url": broker,
            "journal.url": journal,
            "relays.sink.host": "127.0.0.1",
            "relays.sink.port": str(self.relay.port),
            "relays.sink.security": "none",
            "message_id_domain": "stage.example",
        }
        for stream in ("transactional", "codes", "bulk"):
            said[f"streams.{stream}.from"] = "Stage <stage@stage.example>"
        said |= settings or {}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MAILGATE_")}
        names = {f"MAILGATE_{k.replace('.', '__').upper()}": v for k, v in said.items()}
        self.environment = kept | names | {"PYTHONPATH": str(ROOT)}
        (directory / "state").mkdir()

    # --- commands ---------------------------------------------------------------------

    def run(
        self, *arguments: str, code: int | None = 0, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command to its end; ``code`` is the exit code that it must have."""
        if self._program is _MAILGATE and "MAILGATE_FAILPOINTS" not in self.environment:
            done = loaded(ROOT).run(
                arguments, env=self.environment, cwd=self.directory, stdin=stdin
            )
        else:
            done = subprocess.run(
                [*self._program, *arguments],
                env=self.environment,
                cwd=self.directory,
                capture_output=True,
                input=None if stdin is None else stdin.decode(),
                text=True,
                timeout=60,
            )
        said = f"{arguments}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert code is None or done.returncode == code, said
        return done

    def json(self, *arguments: str, code: int | None = 0) -> Any:
        """What a command says with ``--json``."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def begin(self, *arguments: str, env: Mapping[str, str] | None = None) -> Program:
        """A command that runs on."""
        log = self.directory / f"{next(self._number):02}-{arguments[0]}.log"
        program = Program(
            [*self._program, *arguments],
            log=log,
            env={**self.environment, **(env or {})},
            cwd=self.directory,
        )
        self._started.append(program)
        return program

    def keep(self, start: Callable[[], Program]) -> Kept:
        """A program that is started again whenever it ends, as long as the stage stands."""
        self._kept.append(Kept(start))
        return self._kept[-1]

    def intake(self) -> Program:
        return self.begin("intake")

    def worker(self, concurrency: int = 2, *options: str) -> Program:
        """A worker of so many processes, with a node name of its own."""
        name = f"stage{next(self._number)}"
        count = ("--concurrency", str(concurrency))
        return self.begin("worker", *count, "--name", name, *options)

    def wait_for_workers(self, processes: int, seconds: float = 30.0) -> None:
        until(lambda: len(self.journal.workers()) >= processes, seconds, self.logs)

    # --- failpoints -------------------------------------------------------------------

    def arm(self, failpoints: str) -> None:
        """What processes that are started from now on are told of failpoints."""
        self.environment |= {
            "MAILGATE_TEST": str(self.directory),
            "MAILGATE_FAILPOINTS": failpoints,
        }

    def disarm(self) -> None:
        self.environment.pop("MAILGATE_FAILPOINTS", None)

    def fired(self) -> list[tuple[str, int]]:
        """Which failpoints have fired, in which processes."""
        book = self.directory / "fired"
        if not book.exists():
            return []
        lines = [line.split() for line in book.read_text().splitlines()]
        return [(name, int(pid)) for _, pid, name, _ in lines]

    # --- publishing ---------------------------------------------------------------------

    def publish(self, documents: Sequence[Document | bytes], *, door: str = "") -> None:
        """By the broker's own door; ``door="list"`` for a Redis list."""
        if self.broker.startswith("amqp"):
            publish_amqp(self.broker, documents)
            return
        with self.redis() as client:
            (publish_list if door == "list" else publish_stream)(client, documents)

    def inbox(self) -> int:
        """How many documents wait in the inbox; of RabbitMQ's, those that nobody has in hand."""
        if self.broker.startswith("amqp"):
            return waiting_amqp(self.broker)
        with self.redis() as client:
            return int(client.xlen("mailgate:inbox"))

    def redis(self) -> redis.Redis:
        if self.broker.startswith("redis+socket://"):
            return redis.Redis(unix_socket_path=self.broker.removeprefix("redis+socket://"))
        return redis.Redis.from_url(self.broker)

    # --- waiting and reckoning ----------------------------------------------------------

    def wait_accepted(self, count: int, seconds: float = 60.0) -> None:
        """Until the journal has so many recipients."""
        until(lambda: self.journal.accepted() >= count, seconds, self.logs)

    def wait_finished(self, count: int, seconds: float = 60.0) -> None:
        """Until so many recipients are known and none of them waits."""

        def over() -> bool:
            return self.journal.accepted() >= count and not self.journal.unfinished()

        until(over, seconds, lambda: f"{self.journal.states()}\n{self.logs()}")

    def account(self, documents: Sequence[Document]) -> Account:
        return reckon(self.journal, self.relay.taken(), recipients(documents))

    def logs(self) -> str:
        """The ends of all logs, for the message of a failure."""
        return "\n".join(f"== {p.log.name}\n{p.tail(25)}" for p in self._started)

    def close(self) -> None:
        for kept in self._kept:
            kept.leave()
        for program in self._started:
            program.wipe_out()
        self.relay.stop()


def until(
    condition: Callable[[], bool], seconds: float, say: Callable[[], str] = lambda: ""
) -> float:
    """Wait for a condition, for so long at most; gives the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"not within {seconds:g} s\n{say()}")
        time.sleep(0.05)
    return time.monotonic() - begun


def short_directory() -> Path:
    """A directory whose path fits a Unix socket."""
    return Path(tempfile.mkdtemp(prefix="stage-"))
