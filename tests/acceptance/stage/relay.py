"""The sink as a running process, and its book as values.

Owns reading the book and the judgement of rates by the sink's own clock.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.servers import Daemon, free_port
from tests.servers.process import accepts

#: Answers after which the mail lies at the relay.
TAKEN = ("250", "drop", "reset", "half", "mute")
_SINK = Path(__file__).with_name("sink.py")


@dataclass(frozen=True, slots=True)
class Copy:
    """One transaction at the sink; times are nanoseconds since 1970."""

    mail_at: int
    end_at: int
    sender: str
    recipient: str
    answer: str
    message_id: str
    date: str
    digest: str
    peer: int

    @property
    def taken(self) -> bool:
        """Whether the mail now lies at the relay, whatever mailgate was told."""
        return self.answer in TAKEN


class Relay:
    """A running sink; ``plans`` as in ``sink.py``."""

    def __init__(self, directory: Path, plans: Mapping[str, Sequence[str]] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "book"
        self._directory = directory
        self.port = free_port()
        self._command = [
            sys.executable,
            "-I",
            "-S",
            _SINK,
            self.port,
            self._path,
            json.dumps(plans or {}),
        ]
        self.start()

    def start(self) -> None:
        """Listen, again after ``stop``: the book goes on."""
        self._daemon = Daemon(
            [str(part) for part in self._command],
            log=self._directory / "log",
            ready=lambda: accepts(self.port),
            grace=2,
        )

    def book(self) -> list[Copy]:
        """Every transaction so far, in the order of their ends."""
        if not self._path.exists():
            return []
        text = self._path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        return [Copy(**json.loads(line)) for line in whole.splitlines()]

    def stalls(self) -> list[tuple[int, int]]:
        """From when to when (ns) the machine did not let it read, and what came then was read."""
        lines = self._path.with_name("book.stalls").read_text().splitlines()
        return [(int(begun), int(end) + 10**7) for begun, end in map(str.split, lines)]

    def most_connections(self) -> int:
        """How many were open at once, at most."""
        doors = self._path.with_name("book.doors").read_text()
        most = now = 0
        for line in doors.splitlines():
            now += int(line.split()[1])
            most = max(most, now)
        return most

    def taken(self) -> Counter[str]:
        """Mails taken, by recipient."""
        return Counter(copy.recipient for copy in self.book() if copy.taken)

    def freeze(self) -> None:
        """Answer nothing until ``thaw``."""
        self._daemon.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._daemon.signal(signal.SIGCONT)

    def stop(self) -> None:
        self._daemon.stop()


def most_at_once(copies: Iterable[Copy]) -> int:
    """How many transactions were under way at once, at most."""
    changes = [c for copy in copies for c in ((copy.mail_at, 1), (copy.end_at, -1))]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def busiest(times: Iterable[int], window: float, unseen: Sequence[tuple[int, int]] = ()) -> int:
    """The most of ``times`` (ns) in any half-open window of so many seconds.

    Those within a span of ``unseen`` say nothing of when they came, and do not count.
    """
    ordered = sorted(at for at in times if not any(a < at < b for a, b in unseen))
    width = int(window * 1e9)
    most = first = 0
    for last, time in enumerate(ordered):
        while time - ordered[first] >= width:
            first += 1
        most = max(most, last - first + 1)
    return most


def gaps(copies: Iterable[Copy], name: str) -> list[float]:
    """Seconds between two tries for one recipient, of all whose address begins with ``name``."""
    ends: dict[str, list[int]] = defaultdict(list)
    for copy in copies:
        if copy.recipient.startswith(name):
            ends[copy.recipient].append(copy.end_at)
    return [(b - a) / 1e9 for tries in ends.values() for a, b in pairwise(sorted(tries))]
