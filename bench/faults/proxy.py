"""A small TCP proxy that can be cut, or lose what goes through it: the network between two
programs.

Owns one listening port and the connections through it, and when each side of a connection
whose packets are lost gave it up. Runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

#: ``up`` is what the program that connected says, ``down`` what it is told.
Way = Literal["up", "down", "both"]


@dataclass(eq=False, slots=True)
class Line:
    """One connection through the proxy, both ends of it."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter | None = None
    #: Since when its packets are lost (monotonic), and of which way.
    lost_at: float | None = None
    lost: set[str] = field(default_factory=set)
    #: When the program that connected gave it up.
    left_at: float | None = None
    #: Whether it has said something since.
    used: bool = False

    @property
    def deaf_for(self) -> float | None:
        """Seconds for which its program held on to it; None while it still does."""
        if self.lost_at is None or self.left_at is None:
            return None
        return max(0.0, self.left_at - self.lost_at)


class Proxy:
    """Passes everything on to a port of this machine, until told otherwise."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._loop = asyncio.new_event_loop()
        self._lines: list[Line] = []
        self._refusing = False
        self._losing: set[str] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._do(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> int:
        """Reset every connection, and each new one, until ``heal``; gives how many there were."""
        return int(self._do(self._cut()))

    def hang(self) -> None:
        """Pass nothing on and close nothing, until ``heal``."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def forget(self, way: Way = "both") -> int:
        """Lose for ever what goes through the connections of now, as a firewall does that
        has forgotten them: no end is told, not even when the other one hangs up.

        New connections work. Gives how many were lost.
        """
        return int(self._do(self._forget(way)))

    def lose(self, way: Way = "both") -> int:
        """``forget``, and the same with each new connection until ``heal``.

        Those are taken, since nobody can lose the packets of a connection to this machine
        before it is there; then they are silent.
        """
        return int(self._do(self._forget(way, new=True)))

    def heal(self) -> None:
        """Pass on again, also what came meanwhile; what was lost stays so."""
        self._do(self._heal())

    def lost(self) -> list[Line]:
        """The connections whose packets are lost, as long as they have an end."""
        return [line for line in self._lines if line.lost_at is not None]

    def close(self) -> None:
        self.cut()
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _heal(self) -> None:
        self._refusing = False
        self._losing = set()
        self._flowing.set()

    async def _cut(self) -> int:
        self._refusing = True
        count = len(self._lines)
        for line in self._lines:
            for end in (line.near, line.far):
                if end is not None:
                    _reset(end)
        return count

    async def _forget(self, way: Way, new: bool = False) -> int:
        ways = {"up", "down"} if way == "both" else {way}
        if new:
            self._losing = ways
        living = [line for line in self._lines if line.lost_at is None and line.left_at is None]
        for line in living:
            _lose(line, ways)
        return len(living)

    async def _end(self) -> None:
        self._server.close()
        # Whoever connected in the last moment has its task only now.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(writer)
        if self._losing == {"up", "down"}:
            # Nobody is asked for it.
            _lose(line, self._losing)
            self._lines.append(line)
            await self._swallow(reader, line)
            return
        await self._flowing.wait()
        if self._refusing:
            _reset(writer)
            return
        try:
            far_reader, line.far = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        if self._losing:
            _lose(line, self._losing)
        self._lines.append(line)
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(
                self._pump(reader, line.far, line, "up"),
                self._pump(far_reader, writer, line, "down"),
            )
        if line.lost_at is None:
            self._lines.remove(line)
        for one in (writer, line.far):
            one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line, way: str
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                if self._refusing:
                    return
                if line.lost and way == "up":
                    line.used = True
                if way in line.lost:
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            if not line.lost:
                raise
        if way == "up":
            line.left_at = time.monotonic()
        if way in line.lost:
            # The end of a connection is a packet too.
            await asyncio.Event().wait()
        writer.write_eof()

    async def _swallow(self, reader: asyncio.StreamReader, line: Line) -> None:
        with suppress(OSError):
            while await reader.read(65536):
                line.used = True
        line.left_at = time.monotonic()
        line.near.transport.abort()


def _lose(line: Line, ways: set[str]) -> None:
    line.lost_at = time.monotonic()
    line.lost = set(ways)


def _reset(writer: asyncio.StreamWriter) -> None:
    line = writer.get_extra_info("socket")
    with suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
