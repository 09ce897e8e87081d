"""A child process of ``mailgate up``: its log, its readiness, starting it again, its end.

Owns how one part is started and watched. Never knows which parts there are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import typer

from mailgate.cli.setting import clean, complain

#: How long a part may take to be ready, and how long to end (seconds).
READY = 30.0
_END = 45.0
#: A part that ends is started again: first and longest wait.
_AGAIN = (0.5, 10.0)


class Part:
    """One child process with its log file."""

    def __init__(
        self, name: str, command: list[str], logs: Path, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        self._command = command
        self._environ = dict(environ)
        self._wait = _AGAIN[0]
        self._again_at = 0.0
        self._said_before = 0
        self.process: subprocess.Popen[bytes]
        self._line: socket.socket | None = None

    def start(self, *, notifies: bool = False) -> None:
        environ = dict(self._environ)
        environ.pop("NOTIFY_SOCKET", None)
        if notifies:
            directory = tempfile.mkdtemp(prefix="mailgate-")
            self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._line.bind(f"{directory}/notify")
            environ["NOTIFY_SOCKET"] = f"{directory}/notify"
        with open(self.log, "ab") as log:
            self._said_before = log.tell()
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                # Ctrl-C is ours: the parts end in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def await_ready(self) -> None:
        """Wait for READY=1; ends the program when the part ends or takes too long."""
        assert self._line is not None
        self._line.settimeout(0.1)
        deadline = time.monotonic() + READY
        try:
            while time.monotonic() < deadline:
                try:
                    if b"READY=1" in self._line.recv(64):
                        return
                except TimeoutError:
                    pass
                if self.process.poll() is not None:
                    self.give_up(f"ended with {self.process.returncode}")
        finally:
            path = Path(self._line.getsockname())
            self._line.close()
            shutil.rmtree(path.parent, ignore_errors=True)
        self.give_up(f"was not ready in {READY:.0f} s")

    def give_up(self, why: str) -> NoReturn:
        """End the program with the last that the part has said since it was started."""
        with open(self.log, "rb") as log:
            log.seek(self._said_before)
            said = log.read().decode(errors="replace").splitlines()[-15:]
        complain(f"{self.name} {why}" + (":" if said else ""))
        for line in said:
            print(f"  {clean(line)}", file=sys.stderr)
        raise typer.Exit(1)

    def watch(self) -> None:
        """Start it again when it has ended, after a wait that grows."""
        code = self.process.poll()
        if code is None:
            return
        now = time.monotonic()
        if not self._again_at:
            complain(f"{self.name} ended with {code} and is started again; see {self.log}")
            self._again_at = now + self._wait
            self._wait = min(self._wait * 2, _AGAIN[1])
        elif now >= self._again_at:
            self._again_at = 0.0
            self.start()

    def stop(self) -> bool:
        """End it; false when it had to be killed."""
        if self.process.poll() is not None:
            return True
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_END)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return False
        return True


def _die_with_parent() -> None:
    """On Linux the kernel ends the part when we are killed (prctl, PR_SET_PDEATHSIG)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
