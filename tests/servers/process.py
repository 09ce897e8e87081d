"""One server process: started, waited for with a bound, stopped by its own group.

Owns free ports, the way a server is found and started, the unprivileged user
for servers that refuse root, and the log shown when a start fails. Knows no
particular server.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_KEEPER = Path(__file__).with_name("keeper.py")
_SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")


class ServerFailed(RuntimeError):
    """A server of the tests is missing, died while starting or was not ready in time."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free now.

    Taken from below the range that the kernel gives to outgoing connections, so
    that none of those takes it before the server does.
    """
    for _ in range(200):
        port = random.randrange(15000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerFailed("no free port on 127.0.0.1 between 15000 and 32000")


def find_program(name: str, *, package: str, also: Sequence[str | Path] = ()) -> str:
    """The path of a program: ``also`` first, then PATH and the system's directories.

    Raises ``ServerFailed`` naming the Debian package when there is none.
    """
    ours = Path(sys.executable).parent  # where ./dev puts smtp-sink
    path = os.pathsep.join([*map(str, also), os.environ.get("PATH", ""), str(ours), *_SYSTEM_PATH])
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerFailed(
            f"{name} is not here: ./dev test installs it, or: apt-get install {package}"
        )
    return found


def unprivileged_user() -> tuple[int, int] | None:
    """Who runs the servers that refuse to be root: (uid, gid), or None when we are not root."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


class Daemon:
    """A running server process with its log.

    ``ready`` is asked until it returns true; an OSError from it means "not yet".
    ``give_up`` is the bound in seconds.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
        user: tuple[int, int] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = 10.0,
        give_up: float = 30.0,
    ) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self.name = Path(self.command[0]).name
        owner = f"{user[0]}:{user[1]}" if user else "-"
        self._ack, acknowledge = os.pipe()
        keeper = [sys.executable, "-I", "-S", str(_KEEPER), str(acknowledge)]
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [*keeper, str(int(stop_signal)), str(grace), owner, *self.command],
                pass_fds=[acknowledge],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(os.environ if env is None else env),
                cwd=log.parent,
                start_new_session=True,
            )
        os.close(acknowledge)
        try:
            self._wait_until(ready, give_up)
        except BaseException:
            self.kill()
            raise

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def _wait_until(self, ready: Callable[[], bool], give_up: float) -> None:
        deadline = time.monotonic() + give_up
        while True:
            with contextlib.suppress(OSError):
                if ready():
                    return
            code = self._process.poll()
            if code is not None:
                raise ServerFailed(f"{self.name} ended with {code} while starting\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} was not ready in {give_up:g} s\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, lines: int = 60) -> str:
        """The end of the server's log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        """A signal for the server and its group: SIGSTOP freezes it, SIGCONT thaws it.

        It has been sent when this returns.
        """
        if self._process.stdin is None or self._process.stdin.closed:
            return
        with contextlib.suppress(OSError):  # it is gone already
            self._process.stdin.write(bytes([number]))
            self._process.stdin.flush()
            os.read(self._ack, 1)

    def stop(self) -> None:
        """Ask the server to end, and see to it; returns when all it started is gone."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            os.close(self._ack)
        self._process.wait(60)

    def kill(self) -> None:
        """SIGKILL, as a power cut would be; returns when all it started is gone."""
        self.signal(signal.SIGKILL)
        self.stop()


def accepts(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
