"""The sides that are compared, each as real processes over real servers.

Owns starting and stopping one side, putting messages on its queue so that all are
there before the clock starts, and the check afterwards that each was sent once.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import amqp
import kombu
import psycopg
import redis
from amqp.exceptions import MessageNacked

from bench import environment
from bench.workload import SENDER, TEMPLATES
from tests.servers import Postgres, RabbitMQ, Valkey
from tests.servers.process import Daemon

ROOT = Path(__file__).parent.parent
INBOX = "mailgate.inbox"
#: What `mailgate up` gives its own broker.
VALKEY = ("--appendonly", "yes", "--maxmemory-policy", "noeviction")


class Side(ABC):
    """One thing to be measured. ``messages`` go on its queue; ``go`` lets them be taken."""

    name: str
    #: How many of the asked-for messages it is given: the slow one gets fewer.
    share = 1.0

    def __init__(self, directory: Path, relay_port: int) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.relay_port = relay_port
        self.parts: dict[str, Daemon] = {}

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def publish(self, body: bytes) -> None:
        """One message, to processes that are up."""

    @abstractmethod
    def load(self, bodies: Sequence[bytes]) -> None:
        """All of them onto the queue, while nobody takes from it."""

    @abstractmethod
    def go(self) -> float:
        """From now on they are taken; gives that moment."""

    @abstractmethod
    def check(self, count: int) -> None:
        """Wait until the side itself knows that all are sent; raises when they are not."""

    @abstractmethod
    def servers(self) -> dict[str, Daemon]: ...

    def stop(self) -> None:
        for part in reversed(self.parts.values()):
            part.stop()
        self.parts.clear()

    def _run(self, name: str, command: list[str], environ: dict[str, str]) -> Daemon:
        self.parts[name] = Daemon(
            command,
            log=self.directory / f"{name}.log",
            ready=lambda: True,
            env={**environment.environ(), **environ},
            grace=20,
        )
        return self.parts[name]


class Plain(Side):
    name = "plain pattern"

    def __init__(self, directory: Path, relay_port: int, valkey: Valkey) -> None:
        super().__init__(directory, relay_port)
        self._valkey = valkey
        self._client = redis.Redis(unix_socket_path=str(valkey.socket), db=1)
        self._client.flushdb()

    def start(self) -> None:
        broker = f"{self._valkey.broker_url}?virtual_host=1"
        os.environ["PLAIN_BROKER"] = broker
        from bench.plain import app

        app.conf.broker_url = broker
        self._app = app
        environ = {"PLAIN_BROKER": broker, "PLAIN_RELAY": str(self.relay_port)}
        command = [sys.executable, "-m", "celery", "-A", "bench.plain", "worker"]
        command += ["--concurrency=2", "--pool=prefork", "--loglevel=info"]
        self._run("worker", [*command, "--without-gossip", "--without-mingle"], environ)

    def publish(self, body: bytes) -> None:
        self._app.send_task("plain.send", args=[json.loads(body)])

    def load(self, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            self._app.send_task("plain.send", args=[json.loads(body)], queue="staged")

    def go(self) -> float:
        self._client.rename("staged", "plain")
        return time.monotonic()

    def check(self, count: int) -> None:
        until = time.monotonic() + 10
        while self._client.hlen("unacked") or self._client.llen("plain"):
            if time.monotonic() > until:
                raise TimeoutError("tasks of the plain pattern are left")
            time.sleep(0.02)

    def servers(self) -> dict[str, Daemon]:
        return {"valkey": self._valkey._daemon}


class Mailgate(Side):
    """mailgate's own processes over a broker and a journal."""

    #: Lines added to its configuration.
    extra = ""
    #: Of each of its two worker processes.
    connections = 4
    #: How many delivering processes it has, and how many intakes.
    children, intakes = 2, 1

    def __init__(self, directory: Path, relay_port: int) -> None:
        super().__init__(directory, relay_port)
        self._config = directory / "mailgate.toml"
        self._notices = directory / "notify"
        # A socket's path has room for 107 bytes.
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(str(self._notices))

    @abstractmethod
    def urls(self) -> tuple[str, str]:
        """Of the broker and the journal."""

    @abstractmethod
    def pour(self, bodies: Sequence[bytes], queue: str = INBOX) -> None:
        """Several messages to processes that are up, at the least cost for who publishes."""

    @abstractmethod
    def states(self) -> dict[str, int]:
        """Recipients by state, and ``attempts``."""

    def taken_in(self) -> int:
        """Recipients that the journal holds."""
        return sum(n for state, n in self.states().items() if state != "attempts")

    def start(self) -> None:
        broker, journal = self.urls()
        self._config.write_text(
            f"""
state_dir = "{self.directory / "state"}"
[broker]
url = "{broker}"
[journal]
url = "{journal}"
[templates]
path = ["{TEMPLATES}"]
[relays.sink]
host = "127.0.0.1"
port = {self.relay_port}
security = "none"
max_connections = {self.connections}
[streams.transactional]
from = "{SENDER}"
{self.extra}
"""
        )
        self.command("db", "upgrade")
        self._mailgate("worker", "worker", "--concurrency", str(self.children))
        self._start_intake()

    def command(self, *arguments: str) -> None:
        """Run one of its commands to the end."""
        done = self._mailgate("command", *arguments)
        while done.running:
            time.sleep(0.05)
        del self.parts["command"]

    def _mailgate(self, name: str, *arguments: str) -> Daemon:
        command = [sys.executable, "-m", "mailgate.cli.main", "--config", str(self._config)]
        environ = {"NOTIFY_SOCKET": str(self._notices)} if name.startswith("intake") else {}
        return self._run(name, [*command, *arguments], environ)

    def _start_intake(self) -> float:
        """The moment at which intake says that it takes; of several the last."""
        self._line.settimeout(30)
        moment: list[float] = []

        def hear() -> None:
            with contextlib.suppress(TimeoutError):
                for _ in range(self.intakes):
                    while b"READY=1" not in self._line.recv(64):
                        pass
                moment.append(time.monotonic())

        thread = threading.Thread(target=hear)
        thread.start()
        self._mailgate("intake", "intake")
        for number in range(1, self.intakes):
            self._mailgate(f"intake{number}", "intake")
        thread.join()
        if not moment:
            raise TimeoutError(f"intake is not ready\n{self.parts['intake'].tail()}")
        return moment[0]

    def load(self, bodies: Sequence[bytes]) -> None:
        for name in [name for name in self.parts if name.startswith("intake")]:
            self.parts.pop(name).stop()
        self.put(bodies)

    @abstractmethod
    def put(self, bodies: Sequence[bytes]) -> None: ...

    def go(self) -> float:
        return self._start_intake()

    def check(self, count: int) -> None:
        until = time.monotonic() + 20
        while True:
            states = self.states()
            if states == {"sent": count, "attempts": count}:
                return
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name}: the journal says {states} of {count}")
            time.sleep(0.02)

    def stop(self) -> None:
        super().stop()
        self._line.close()


def _message(body: bytes) -> amqp.Message:
    said = amqp.Message(body, content_type="application/json", delivery_mode=2)
    said.properties["message_id"] = uuid.uuid4().hex
    return said


_COUNTS = (
    "SELECT state, count(*) FROM recipients GROUP BY state"
    " UNION ALL SELECT 'attempts', count(*) FROM attempts"
)


class Embedded(Mailgate):
    name = "mailgate: Valkey, SQLite"

    def __init__(self, directory: Path, relay_port: int, valkey: Valkey) -> None:
        super().__init__(directory, relay_port)
        self._valkey = valkey
        self._client = redis.Redis(unix_socket_path=str(valkey.socket))
        self._client.flushdb()

    def urls(self) -> tuple[str, str]:
        return self._valkey.broker_url, f"sqlite:///{self.directory / 'journal.db'}"

    def publish(self, body: bytes) -> None:
        self._client.xadd(INBOX.replace(".", ":"), {"message": body})

    def pour(self, bodies: Sequence[bytes], queue: str = INBOX) -> None:
        stream = queue.replace(".", ":")
        with self._client.pipeline(transaction=False) as pipe:
            for body in bodies:
                pipe.xadd(stream, {"message": body})
            pipe.execute()

    def put(self, bodies: Sequence[bytes]) -> None:
        for at in range(0, len(bodies), 1000):
            self.pour(bodies[at : at + 1000])

    def states(self) -> dict[str, int]:
        with contextlib.closing(sqlite3.connect(self.directory / "journal.db")) as db:
            return _nonzero(db.execute(_COUNTS).fetchall())

    def servers(self) -> dict[str, Daemon]:
        return {"valkey": self._valkey._daemon}


class Servers(Mailgate):
    name = "mailgate: RabbitMQ, PostgreSQL"

    def __init__(
        self, directory: Path, relay_port: int, rabbitmq: RabbitMQ, postgres: Postgres
    ) -> None:
        super().__init__(directory, relay_port)
        self._rabbitmq, self._postgres = rabbitmq, postgres
        self._vhost = rabbitmq.fresh_vhost()
        self._database = postgres.fresh_database()
        self._connection = kombu.Connection(self._vhost.url, heartbeat=0)
        self._channels: dict[str, Any] = {}

    def urls(self) -> tuple[str, str]:
        return self._vhost.url, self._postgres.url(self._database)

    def publish(self, body: bytes) -> None:
        self.pour([body])

    def pour(self, bodies: Sequence[bytes], queue: str = INBOX) -> None:
        messages = [_message(body) for body in bodies]
        if messages and queue not in self._channels:
            self._begin(queue, messages.pop(0))
            self._channels[queue] = self._connection.channel()
        for message in messages:
            self._channels[queue].basic_publish(message, routing_key=queue)

    def _begin(self, queue: str, message: amqp.Message) -> None:
        """The first message, again and again until the queue has taken it.

        What is published before the queue is there is lost. And while a quorum queue is being
        made RabbitMQ refuses what comes, of which only those hear who ask for confirms.
        """
        until = time.monotonic() + 30
        while True:
            channel: Any = self._connection.channel()
            try:
                channel.queue_declare(queue, passive=True)
                channel.basic_publish_confirm(message, routing_key=queue)
            except (amqp.NotFound, MessageNacked):
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                channel.close()
                return

    def put(self, bodies: Sequence[bytes]) -> None:
        self.pour(bodies)
        until = time.monotonic() + 60
        while self._vhost.depth(INBOX) < len(bodies):
            if time.monotonic() > until:
                raise TimeoutError("RabbitMQ does not have all messages")
            time.sleep(0.1)

    def states(self) -> dict[str, int]:
        with psycopg.connect(self._postgres.dsn(self._database)) as db:
            return _nonzero(db.execute(_COUNTS).fetchall())

    def servers(self) -> dict[str, Daemon]:
        return {"rabbitmq": self._rabbitmq._daemon, "postgres": self._postgres._daemon}

    def stop(self) -> None:
        super().stop()
        self._connection.release()
        self._postgres.drop(self._database)
        self._rabbitmq.drop(self._vhost)


def _nonzero(rows: Sequence[tuple[str, int]]) -> dict[str, int]:
    return {name: count for name, count in rows if count}


Make = Callable[[Path, int], Side]


@contextlib.contextmanager
def makers(directory: Path, names: Sequence[str]) -> Iterator[dict[str, Make]]:
    """A way to make each of the named sides; their servers run meanwhile."""
    with contextlib.ExitStack() as stack:
        valkey = Valkey(directory / "valkey", *VALKEY)
        stack.callback(valkey.stop)
        found: dict[str, Make] = {
            "plain": lambda d, port: Plain(d, port, valkey),
            "embedded": lambda d, port: Embedded(d, port, valkey),
        }
        if "node" in names:
            from bench.bullmq import Node

            found["node"] = lambda d, port: Node(d, port, valkey)
        if "servers" in names:
            postgres = Postgres(directory / "postgres", durable=True)
            stack.callback(postgres.stop)
            rabbitmq = RabbitMQ(directory / "rabbitmq")
            stack.callback(rabbitmq.close)
            found["servers"] = lambda d, port: Servers(d, port, rabbitmq, postgres)
        yield {name: found[name] for name in names}
