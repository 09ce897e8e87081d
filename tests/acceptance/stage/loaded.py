"""mailgate's commands as processes that have loaded mailgate already.

A command of an operator takes most of its time to load, and the acceptance tests give
hundreds. One process loads everything once and forks for each command: arguments,
environment, directory, output and exit code are the command's own, as at a shell. Programs
that run on are never started this way.

Run as a program it is that process; imported it is the side of the tests.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: What runs beside one of these at its import would not be in the processes that fork.
_NOT = ("mailgate.client.django", "mailgate.client.flask", "mailgate.client.testing")


class Loaded:
    """The process that forks; ``root`` is where mailgate is."""

    def __init__(self, root: Path) -> None:
        self._directory = tempfile.mkdtemp(prefix="loaded-")
        path = f"{self._directory}/socket"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen(64)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MAILGATE_")}
        self._path = path
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(self._listener.fileno())],
            env=kept | {"PYTHONPATH": str(root)},
            stdin=subprocess.DEVNULL,
            pass_fds=[self._listener.fileno()],
        )

    def run(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: bytes | None = None,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """``mailgate`` with ``arguments``, to its end. Raises ``subprocess.TimeoutExpired``."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            files[0].write(stdin or b"")
            files[0].seek(0)
            line = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            line.settimeout(timeout)
            line.connect(self._path)
            said = json.dumps({"arguments": list(arguments), "env": dict(env), "cwd": str(cwd)})
            request = stack.enter_context(tempfile.TemporaryFile())
            request.write(said.encode())
            request.seek(0)
            socket.send_fds(line, [b"run"], [f.fileno() for f in (*files, request)])
            try:
                pid = int(line.recv(64))
            except TimeoutError:
                raise subprocess.TimeoutExpired(list(arguments), timeout) from None
            try:
                code = int(line.recv(64))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), timeout) from None
            for file in files[1:]:
                file.seek(0)
            out, err = (file.read().decode() for file in files[1:])
            return subprocess.CompletedProcess(list(arguments), code, out, err)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.close()
        os.unlink(self._path)
        os.rmdir(self._directory)


@functools.cache
def loaded(root: Path) -> Loaded:
    """The one of this process of tests; it ends with it."""
    made = Loaded(root)
    atexit.register(made.close)
    return made


def _load() -> None:
    import importlib
    import pkgutil

    import mailgate

    for found in pkgutil.walk_packages(mailgate.__path__, "mailgate."):
        if found.name not in _NOT:
            importlib.import_module(found.name)
    # Untouched by the collector, the pages stay shared and the end of a command is quick.
    gc.collect()
    gc.freeze()


def _serve(listener: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Forks for each command; returns in the command's own process, with what it was told."""
    # Whoever waits for a command is a child of ours too, and nobody waits for that.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getppid()
    listener.settimeout(1.0)
    while os.getppid() == parent:  # nothing outlives the tests
        try:
            line, _ = listener.accept()
        except TimeoutError:
            continue
        line.settimeout(None)
        _, fds, _, _ = socket.recv_fds(line, 16, 4)
        if os.fork():
            line.close()
            for fd in fds:
                os.close(fd)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        with os.fdopen(fds.pop(), "rb") as request:
            said = json.loads(request.read())
        command = os.fork()
        if not command:
            line.close()
            return said, fds
        line.send(b"%d" % command)
        _, status = os.waitpid(command, 0)
        with contextlib.suppress(OSError):
            line.send(b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os._exit(0)


def _become(said: dict[str, Any], fds: list[int]) -> None:
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(said["env"])
    os.chdir(said["cwd"])
    sys.argv = ["mailgate", *said["arguments"]]


if __name__ == "__main__":
    _load()
    _become(*_serve(socket.socket(fileno=int(sys.argv[1]))))
    from mailgate.cli.main import main

    main()
