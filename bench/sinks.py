"""Where the mail goes: Postfix's smtp-sink for load, a clock of our own for latency.

Owns counting what was accepted, and when. The sink for latency is not quick and
need not be: it takes one message at a time.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path

from tests.servers.process import Daemon, accepts, find_program, free_port, unprivileged_user

_SUBJECT = re.compile(rb"^Subject: .*?-(\d+)\r?$", re.MULTILINE)
_COUNT = re.compile(rb"mesg=(\d+)")
_STORY = re.compile(r"mesg=(\d+) rides=(\d+) at=([\d.]+)\n")


class LoadSink:
    """``smtp-sink`` with its running counter, read from its own output."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        command = self._command()
        self._log = directory / "counter"
        self.daemon = Daemon(command, log=self._log, ready=lambda: accepts(self.port), grace=2)

    def _command(self) -> list[str]:
        command = [find_program("smtp-sink", package="postfix"), "-c"]
        if unprivileged_user():
            command += ["-u", "nobody"]
        return [*command, f"inet:127.0.0.1:{self.port}", "256"]

    def count(self) -> int:
        """Messages accepted since the start."""
        with self._log.open("rb") as log:
            end = log.seek(0, 2)
            log.seek(max(0, end - 400))
            found = _COUNT.findall(log.read())
        return int(found[-1]) if found else 0

    def wait(self, count: int, timeout: float) -> float:
        """The moment (monotonic) at which ``count`` were accepted; raises ``TimeoutError``."""
        until = time.monotonic() + timeout
        while self.count() < count:
            if time.monotonic() > until:
                raise TimeoutError(f"the sink has {self.count()} of {count} messages")
            time.sleep(0.01)
        return time.monotonic()

    def stop(self) -> None:
        self.daemon.stop()


class FarSink(LoadSink):
    """The same, with every answer ``delay`` seconds late (``bench.far``)."""

    def __init__(self, directory: Path, delay: float) -> None:
        self._delay = delay
        super().__init__(directory)

    def _command(self) -> list[str]:
        return [
            sys.executable,
            str(Path(__file__).parent / "far.py"),
            str(self.port),
            str(self._delay),
        ]

    def story(self) -> list[tuple[int, int, float]]:
        """Every count it gave: what it took, how much of that with the next message's
        commands behind, and when (monotonic)."""
        found = _STORY.findall(self._log.read_text())
        return [(int(taken), int(rides), float(at)) for taken, rides, at in found]


class BookSink(FarSink):
    """The same, and it notes when it took each order (``bench.far``)."""

    def __init__(self, directory: Path, delay: float = 0.0) -> None:
        self._book = directory / "book"
        super().__init__(directory, delay)

    def _command(self) -> list[str]:
        return [*super()._command(), "--book", str(self._book)]

    def book(self, run: str) -> dict[int, float]:
        """The moment (monotonic) at which each number of a run was accepted."""
        lines = self._book.read_text().splitlines() if self._book.exists() else []
        found = (line.split() for line in lines)
        numbers = ((order.rpartition("-"), float(at)) for order, at in found)
        return {int(number): at for (name, _, number), at in numbers if name == run}


class ClockSink:
    """An SMTP server that notes when it accepted the message of each number."""

    def __init__(self) -> None:
        self.port = 0
        self.accepted: dict[int, float] = {}
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def wait(self, number: int, timeout: float) -> float:
        async with asyncio.timeout(timeout):
            async with self._arrived:
                await self._arrived.wait_for(lambda: number in self.accepted)
        return self.accepted[number]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 clock ESMTP\r\n")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-clock\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 go on\r\n")
                    content = await reader.readuntil(b"\r\n.\r\n")
                    writer.write(b"250 2.0.0 taken\r\n")
                    await self._note(content)
                elif verb == b"QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                else:
                    writer.write(b"250 2.0.0 ok\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _note(self, content: bytes) -> None:
        now = time.monotonic()
        found = _SUBJECT.search(content[:4000])
        async with self._arrived:
            if found:
                self.accepted[int(found[1])] = now
            self._arrived.notify_all()
