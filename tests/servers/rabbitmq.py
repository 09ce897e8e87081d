"""A private RabbitMQ node: its own ports, cookie, epmd, data, log and plugins.

Owns the node's environment and its management API. Every test gets a virtual
host of its own; the node is for the whole session, since it takes seconds to
start. Never speaks to another node, never uses ``rabbitmqctl`` (a second each).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import amqp
import kombu

from tests.servers.process import Daemon, ServerFailed, accepts, find_program, free_port

_SCRIPTS = ("/usr/lib/rabbitmq/bin",)  # before /usr/sbin: the wrapper there wants to be root


@dataclass(frozen=True)
class Vhost:
    """A virtual host of one test; ``url`` is what any AMQP client takes."""

    name: str
    url: str
    node: RabbitMQ

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """A management call; ``{vhost}`` in the path becomes this virtual host."""
        return self.node.api(method, path.replace("{vhost}", self.name), body)

    def depth(self, queue: str) -> int:
        """Messages ready in a queue, now; 0 when there is no such queue."""
        with kombu.Connection(self.url) as connection, connection.channel() as channel:
            try:
                return int(channel.queue_declare(queue, passive=True).message_count)  # type: ignore[attr-defined]
            except amqp.NotFound:
                return 0

    def close_connections(self) -> int:
        """Cut every connection of this virtual host, as a restart would; how many there were."""
        path = f"/api/connections/username/{self.name}"
        found = self.node.api("GET", path)
        self.node.api("DELETE", path)
        return len(found)


class RabbitMQ:
    """A running node with the management plugin; its administrator is ``guest``, ``guest``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.management_port = free_port()
        self._epmd_port = free_port()
        self._distribution_port = free_port()
        self._write_configuration()
        epmd = find_program("epmd", package="rabbitmq-server")
        self._epmd = Daemon(
            [epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"],
            log=directory / "epmd.log",
            ready=lambda: accepts(self._epmd_port),
        )
        try:
            self._daemon = self._start()
        except BaseException:
            self._epmd.stop()
            raise

    def _write_configuration(self) -> None:
        (self.directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "management.tcp.ip = 127.0.0.1\n"
            f"management.tcp.port = {self.management_port}\n"
            "loopback_users.guest = true\n"
            "log.console = true\n"
            "log.console.level = info\n"
            "log.file = false\n"
            "disk_free_limit.absolute = 20MB\n"
        )

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        return kept | {
            "HOME": str(self.directory),  # where the Erlang cookie is made
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "none"),  # not the system's
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.directory / "generated"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "logs"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_NODENAME": "mailgate@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            # The node shares two cores with the tests: idle schedulers must not spin.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _start(self) -> Daemon:
        server = find_program("rabbitmq-server", package="rabbitmq-server", also=_SCRIPTS)
        return Daemon(
            [server],
            log=self.directory / "log",
            ready=self._ready,
            env=self._environment(),
            stop_signal=signal.SIGTERM,
            grace=20,
            give_up=90,
        )

    def _ready(self) -> bool:
        # The listener opens last; the API answers once the node has booted.
        if not accepts(self.port):
            return False
        try:
            return bool(self.api("GET", "/api/overview").get("node"))
        except (ServerFailed, http.client.HTTPException):
            return False

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """A call to the management API; its JSON, or None when it has nothing to say.

        Raises ``ServerFailed`` for any status from 400 on.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.management_port, timeout=30)
        headers: Mapping[str, str] = {
            "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
            "Content-Type": "application/json",
        }
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, dict(headers))
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        if reply.status >= 400:
            raise ServerFailed(f"RabbitMQ: {method} {path}: {reply.status} {text[:300]!r}")
        return json.loads(text) if text else None

    def fresh_vhost(self) -> Vhost:
        """A new, empty virtual host with a random name and a user of that name."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.api("PUT", f"/api/vhosts/{name}", {})
        self.api("PUT", f"/api/users/{name}", {"password": "secret", "tags": ""})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        for user in (name, "guest"):
            self.api("PUT", f"/api/permissions/{name}/{user}", everything)
        return Vhost(name, f"amqp://{name}:secret@127.0.0.1:{self.port}/{name}", self)

    def drop(self, vhost: Vhost) -> None:
        """Delete a virtual host with all it holds, and its user."""
        self.api("DELETE", f"/api/vhosts/{vhost.name}")
        self.api("DELETE", f"/api/users/{vhost.name}")

    @property
    def running(self) -> bool:
        return self._daemon.running

    def stop(self) -> None:
        """Stop the node gracefully; its data stays."""
        self._daemon.stop()

    def kill(self) -> None:
        """SIGKILL to the node; its data stays."""
        self._daemon.kill()

    def freeze(self) -> None:
        """Stop answering without closing anything (SIGSTOP), until ``thaw``."""
        self._daemon.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._daemon.signal(signal.SIGCONT)

    def start(self) -> None:
        """Start again on the same ports and data, after ``stop`` or ``kill``."""
        self._daemon = self._start()

    def close(self) -> None:
        """End of the session: the node and its epmd go, without ceremony."""
        self._daemon.kill()
        self._epmd.kill()
