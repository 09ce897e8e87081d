"""Processes as the kernel shows them: families, connections, processor time.

Owns reading ``/proc`` and one running command. Never signals a process that it
was not handed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class Program:
    """A running command, in a session and process group of its own, its output in a file."""

    def __init__(
        self, command: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path
    ) -> None:
        self.log = log
        # Readiness as systemd would hear it; short, since a socket's path has a limit. Two may
        # be started at once, by who keeps them.
        self._notify = cwd / f"ready{secrets.token_hex(4)}"
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(str(self._notify))
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**env, "NOTIFY_SOCKET": str(self._notify)},
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._heard = False

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Until it has said READY=1, if it has not been heard before."""
        if self._heard:
            return
        self._line.settimeout(seconds)
        try:
            self._heard = self._line.recv(64).startswith(b"READY=1")
        except TimeoutError:
            raise AssertionError(f"not ready in {seconds:g} s\n{self.tail()}") from None

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def children(self) -> list[int]:
        """Its direct children, oldest first."""
        return children(self.pid)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit code; raises ``AssertionError`` with its log when it does not end."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:g} s\n{self.tail()}") from None

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """SIGKILL to it alone."""
        self.signal(signal.SIGKILL)
        self._process.wait(10)

    def wipe_out(self) -> None:
        """SIGKILL to all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.running:
            self._process.wait(10)
        self._line.close()

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Kept:
    """A program that is started again whenever it ends, as a machine's service manager does."""

    def __init__(self, start: Callable[[], Program]) -> None:
        self._start = start
        self._over = threading.Event()
        self.program = start()
        self.starts = 1
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            if not self.program.running:
                self.program = self._start()
                self.starts += 1

    def leave(self) -> None:
        """Keep it no longer; it runs on."""
        self._over.set()
        self._thread.join()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; empty when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return sorted(found)


def family(pid: int) -> list[int]:
    """It and all below it."""
    found = [pid]
    for child in children(pid):
        found += family(child)
    return found


def group(pgid: int) -> list[int]:
    """The living processes of a group, also those whose parent has died."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields and fields[0] not in "ZX" and int(fields[2]) == pgid:
                found.append(int(entry.name))
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that they have used so far, the kernel's share included."""
    ticks = 0
    for pid in pids:
        fields = _stat(pid)
        if fields:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def measure() -> float:
    """Processor seconds that a fixed piece of work takes here and now: what others go by.

    The same machine takes half as long again in another hour.
    """
    rows = [{"n": n, "title": f"item {n % 7}", "price": n / 7} for n in range(20)]

    def once() -> float:
        begun = time.process_time()
        for _ in range(3000):
            sorted(json.loads(json.dumps(rows)), key=lambda row: str(row["title"]))
        return time.process_time() - begun

    return min(once() for _ in range(3))


def _sockets(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry)):
                found.add(match[1])
    return found


def connections_to(pid: int, port: int) -> set[int]:
    """The local ports of its TCP connections (IPv4) to a port of this machine."""
    own = _sockets(pid)
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, inode = fields[1], fields[2], fields[9]
        if inode in own and int(remote.partition(":")[2], 16) == port:
            found.add(int(local.partition(":")[2], 16))
    return found
