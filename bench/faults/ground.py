"""The servers under a fault, and a gateway of its own for each.

Owns starting real brokers and databases when a fault first asks, and their journals. The
servers keep what they confirm, as in production. Never shares a journal or a queue
between two faults.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.faults.proxy import Proxy
from tests.acceptance.stage import Stage
from tests.acceptance.stage.stage import ROOT, short_directory
from tests.servers import Postgres, RabbitMQ, Valkey

BROKERS = ("rabbitmq", "valkey")
JOURNALS = ("postgresql", "sqlite")
PAIRS = tuple((broker, journal) for broker in BROKERS for journal in JOURNALS)

#: Redis as a careful operator runs it: what was acknowledged is on disk within a second.
AOF = ("--appendonly", "yes", "--appendfsync", "everysec")


class Ground:
    """``servers`` are those that a test run has already; others are started here."""

    def __init__(self, directory: Path, **servers: Callable[[], Any]) -> None:
        self.directory = directory
        self._servers = servers
        self._own: list[Callable[[], None]] = []
        self._stages: list[Stage] = []
        self._proxies: list[Proxy] = []
        self._databases: list[str] = []

    @cached_property
    def valkey(self) -> Valkey:
        if "valkey" in self._servers:
            given: Valkey = self._servers["valkey"]()
            return given
        server = Valkey(self.directory / "valkey", *AOF)
        self._own.append(server.stop)
        return server

    @cached_property
    def rabbitmq(self) -> RabbitMQ:
        if "rabbitmq" in self._servers:
            given: RabbitMQ = self._servers["rabbitmq"]()
            return given
        server = RabbitMQ(self.directory / "rabbitmq")
        self._own.append(server.close)
        return server

    @cached_property
    def postgres(self) -> Postgres:
        if "postgres" in self._servers:
            given: Postgres = self._servers["postgres"]()
            return given
        server = Postgres(self.directory / "postgres", durable=True)
        self._own.append(server.stop)
        return server

    @cached_property
    def _sqlite_template(self) -> Path:
        path = self.directory / "template.db"
        self._upgrade(f"sqlite:///{path}")
        return path

    @cached_property
    def _postgres_template(self) -> str:
        name = self.postgres.fresh_database()
        self._upgrade(self.postgres.url(name))
        return name

    def _upgrade(self, url: str) -> None:
        command = [sys.executable, "-m", "mailgate.cli.main", "db", "upgrade"]
        environment = os.environ | {"MAILGATE_JOURNAL__URL": url, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, env=environment, cwd=self.directory, check=True, timeout=60)

    def stage(
        self,
        broker: str,
        journal: str,
        *,
        where: Path | None = None,
        broker_url: str = "",
        between: tuple[str, ...] = (),
        **more: Any,
    ) -> Stage:
        """A gateway on an empty broker and an empty journal.

        ``between`` names what is reached through a proxy (``broker``, ``journal``,
        ``limiter``, ``relay``): then ``proxies`` has one each. ``where`` is the journal's
        directory.
        """
        directory = short_directory()
        if not broker_url:
            broker_url = self._broker(broker, over_tcp="broker" in between)
        journal_url = self._journal(journal, where or directory)
        if "broker" in between:
            broker_url = self._through(broker_url)
        if "journal" in between:
            journal_url = self._through(journal_url)
        if "limiter" in between:
            self._broker("valkey", over_tcp=True)
            store = self._through(f"{self.valkey.url.rstrip('/')}/")
            more["settings"] = {**more.get("settings", {}), "limiter.url": store}
        made = Stage(directory, broker=broker_url, journal=journal_url, **more)
        self._stages.append(made)
        if "relay" in between:
            proxy = Proxy(made.relay.port)
            self._proxies.append(proxy)
            made.environment["MAILGATE_RELAYS__SINK__PORT"] = str(proxy.port)
        return made

    def _broker(self, broker: str, *, over_tcp: bool) -> str:
        if broker == "rabbitmq":
            if not self.rabbitmq.running:
                self.rabbitmq.start()
            return self.rabbitmq.fresh_vhost().url
        if not self.valkey.running:
            self.valkey.start()
        self.valkey.reset()
        return self.valkey.url if over_tcp else self.valkey.broker_url

    def _journal(self, journal: str, directory: Path) -> str:
        if journal == "sqlite":
            shutil.copy(self._sqlite_template, directory / "journal.db")
            return f"sqlite:///{directory / 'journal.db'}"
        if not self.postgres.running:
            self.postgres.start()
        self._databases.append(self.postgres.fresh_database(self._postgres_template))
        return self.postgres.url(self._databases[-1])

    def _through(self, url: str) -> str:
        port = urlsplit(url).port
        assert port is not None
        proxy = Proxy(port)
        self._proxies.append(proxy)
        assert f":{port}/" in url, "nobody would go through it"
        return url.replace(f":{port}/", f":{proxy.port}/")

    @property
    def proxies(self) -> list[Proxy]:
        """In the order broker, journal, limiter, relay, as far as the last stage has them."""
        return self._proxies

    def clear(self) -> None:
        """End the last fault's gateway with all that belonged to it."""
        for proxy in self._proxies:
            proxy.close()
        for stage in self._stages:
            stage.close()
            shutil.rmtree(stage.directory, ignore_errors=True)
        if self._databases and self.postgres.running:
            for name in self._databases:
                self.postgres.drop(name)
        self._stages, self._proxies, self._databases = [], [], []

    def close(self) -> None:
        self.clear()
        for stop in self._own:
            stop()


@contextmanager
def own_ground() -> Iterator[Ground]:
    """A ground with servers of its own, gone at the end."""
    directory = short_directory()
    directory.chmod(0o711)
    ground = Ground(directory)
    try:
        yield ground
    finally:
        ground.close()
        shutil.rmtree(directory, ignore_errors=True)
