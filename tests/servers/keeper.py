"""Runs one server and ends it, and all it started, when its owner goes away.

Usage: ``python -I -S keeper.py ACK SIGNAL GRACE UID:GID|- COMMAND...``. The owner
holds the other end of standard input. Each byte on it is the number of a signal
for the server's process group, and comes back on the descriptor ACK when it has
been sent. Closing it, or dying in any way, is the order to
stop: SIGNAL, and after GRACE seconds SIGKILL. So a killed test run leaves no
server behind. Imports nothing but the standard library, since it runs without
the virtual environment's packages.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def _adopt_orphans() -> None:
    """What the server leaves behind becomes our child, so that we can end and reap it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_orphans() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        with contextlib.suppress(OSError, ProcessLookupError):
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main() -> int:
    ack, stop_signal, grace, owner, *command = sys.argv[1:]
    uid, _, gid = owner.partition(":")
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(ignored, lambda *_: None)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    _adopt_orphans()
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        user=int(uid) if gid else None,
        group=int(gid) if gid else None,
        extra_groups=[] if gid else None,
    )

    def tell(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)

    deadline: float | None = None
    while server.poll() is None:
        sources = [wake] if deadline else [0, wake]
        left = max(0.0, deadline - time.monotonic()) if deadline else None
        ready, _, _ = select.select(sources, [], [], left)
        if wake in ready:
            os.read(wake, 4096)
        if 0 in ready:
            orders = os.read(0, 64)
            for number in orders:
                tell(number)
            os.write(int(ack), orders)
            if not orders:
                deadline = time.monotonic() + float(grace)
                tell(int(stop_signal))
                tell(signal.SIGCONT)  # a server that a test froze
        elif deadline and time.monotonic() >= deadline:
            tell(signal.SIGKILL)
            deadline += 60
    _end_orphans()
    code = server.returncode
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
