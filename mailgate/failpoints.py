"""Named points at which a test lets a process die, stand still, wait or fail.

Owns the names, what the environment may say about them, and the doing. Off, a point is
a call of a function that does nothing. Never armed outside test mode: a process that is
told of a failpoint and not of the test refuses to start.

``MAILGATE_FAILPOINTS`` is a list of ``NAME=ACTION[@N][*TIMES]``, separated by commas:
from the N-th time (1) that a process comes there, and TIMES times (1; ``*0``: always) in
all processes together. Actions: ``kill`` (SIGKILL to the process itself), ``stop``
(SIGSTOP, until somebody sends SIGCONT), ``sleep:SECONDS`` (the thread stands),
``raise`` (an exception, as a bug would) and ``drop:PORT`` (every TCP connection of the
process to that port is cut, as a network would). ``MAILGATE_TEST`` names the directory of
the test, which gets a line of ``TIME PID NAME ACTION`` in ``fired`` before each, and of ``NAME
CONNECTIONS`` in ``dropped`` after a drop.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: Every point, in the order in which a message comes to them, and where it lies.
POINTS = {
    "intake.received": "a batch is in hand, nothing of it is written",
    "intake.validated": "a batch is judged, the transaction is open, nothing is written",
    "intake.before_commit": "all of a batch is written, the transaction is open",
    "intake.after_commit": "a batch is in the journal, the broker does not know",
    "intake.before_ack": "the lane was rung, the broker does not know",
    "intake.after_ack": "the broker has heard the acknowledgement",
    "ring.before": "a ring is about to be published",
    "take.admitted": "permits are spent, nothing is claimed",
    "take.before_commit": "claims are written, the transaction is open",
    "take.claimed": "claims are in the journal, no conversation has begun",
    "render.before": "a conversation has begun, nothing is rendered",
    "smtp.connecting": "a connection to a relay is about to be opened",
    "smtp.before_mail": "connected, MAIL is about to be said",
    "smtp.in_commands": "MAIL is answered, or RCPT, and the next is not said: no pipelining",
    "smtp.before_body": "the relay has asked for the body",
    "smtp.in_body": "a large body has left, its dot has not",
    "smtp.before_dot": "the dot comes next, and is not marked",
    "smtp.marked": "the dot is marked, and has not left",
    "smtp.after_dot": "the dot has left, no reply is read",
    "smtp.after_reply": "the reply to the dot is read, and not marked",
    "smtp.accepted": "the relay's 250 is marked",
    "settle.begin": "outcomes are known, no transaction is open",
    "settle.before_commit": "outcomes are written, the transaction is open",
    "settle.after_commit": "outcomes are in the journal, nobody was told",
    "burial.sealed": "a dead process's spool is sealed and read",
    "burial.before_commit": "its claims are settled, the transaction is open",
    "burial.after_commit": "its claims are settled, its lease still stands",
    "events.before_send": "a batch of events is read, none has gone out",
    "events.before_mark": "the broker has a batch of events, the journal does not know",
    "events.written": "how far events are published is in the journal",
    "digest.before_commit": "a digest's mail and the end of its items are written, not committed",
    "digest.after_commit": "a digest's mail is in the journal, the lane was not rung",
    "resend.before_commit": "failures are queued again, the transaction is open",
    "resend.after_commit": "failures are queued again, nobody was rung",
}

_SPEC = re.compile(
    r"(?P<name>[a-z_.]+)="
    r"(?P<action>kill|stop|raise|sleep:(?P<seconds>\d+(\.\d+)?)|drop:(?P<port>\d{1,5}))"
    r"(@(?P<at>[1-9]\d*))?(\*(?P<times>\d+))?"
)


class FailpointsRefused(Exception):
    """The environment asks for failpoints where or how none can be."""


class Failed(Exception):
    """What the action ``raise`` raises."""


@dataclass(slots=True)
class _Point:
    action: str
    seconds: float
    port: int
    at: int
    times: int
    seen: int = 0


def _nothing(name: str) -> None:
    """Off."""


#: Come to a point; ``arm`` puts another function in its place.
hit: Callable[[str], None] = _nothing


def arm(environ: Mapping[str, str]) -> None:
    """Take what the environment says; raises ``FailpointsRefused``."""
    global hit
    said = environ.get("MAILGATE_FAILPOINTS", "")
    if not said:
        return
    directory = Path(environ.get("MAILGATE_TEST", "") or "/nowhere")
    if not directory.is_dir():
        raise FailpointsRefused(
            "MAILGATE_FAILPOINTS lets processes die on purpose, and this is no test:"
            " unset it (in a test MAILGATE_TEST names the test's directory)"
        )
    hit = _Armed(_read(said), directory / "fired")


def _read(said: str) -> dict[str, _Point]:
    found = {}
    for part in said.split(","):
        match = _SPEC.fullmatch(part.strip())
        if match is None or match["name"] not in POINTS:
            raise FailpointsRefused(
                f"MAILGATE_FAILPOINTS: {part.strip()!r} is not NAME=ACTION[@N][*TIMES] with a"
                " known name and one of kill, stop, raise, sleep:SECONDS, drop:PORT"
            )
        found[match["name"]] = _Point(
            action=match["action"].partition(":")[0],
            seconds=float(match["seconds"] or 0),
            port=int(match["port"] or 0),
            at=int(match["at"] or 1),
            times=int(match["times"] or 1),
        )
    return found


class _Armed:
    """What ``hit`` is in a test."""

    def __init__(self, points: dict[str, _Point], fired: Path) -> None:
        self._points = points
        self._fired = fired
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        point = self._points.get(name)
        if point is None:
            return
        with self._lock:
            point.seen += 1
            if point.seen < point.at or not self._mine(name, point):
                return
        if point.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif point.action == "stop":
            # To this thread: another one would take what is for the process a little later,
            # and this one would go on meanwhile.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        elif point.action == "sleep":
            time.sleep(point.seconds)
        elif point.action == "drop":
            cut = _drop(point.port)
            with self._fired.with_name("dropped").open("a") as book:
                book.write(f"{name} {cut}\n")
        else:
            raise Failed(name)

    def _mine(self, name: str, point: _Point) -> bool:
        """Whether it has not fired often enough, in whatever process; then it is written down."""
        with self._fired.open("a+") as book:
            fcntl.flock(book, fcntl.LOCK_EX)
            book.seek(0)
            before = sum(line.split()[2] == name for line in book)
            if point.times and before >= point.times:
                return False
            book.write(f"{time.time():.6f} {os.getpid()} {name} {point.action}\n")
            return True


def _drop(port: int) -> int:
    """Cut every TCP connection of this process to ``port``, whoever in it holds them."""
    cut = 0
    for name in os.listdir("/dev/fd"):
        # Not all are sockets, nor connected, and that of the listing itself is gone by now.
        with suppress(OSError):
            if not stat.S_ISSOCK(os.stat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as line:
                peer = line.getpeername()
                if isinstance(peer, tuple) and peer[1] == port:
                    line.shutdown(socket.SHUT_RDWR)
                    cut += 1
    return cut
