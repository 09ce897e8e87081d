"""A relay that says what a test wrote down for it, and keeps a book of what it heard.

Owns nothing of SMTP's rules: it is as wrong as the script wants. Raw asyncio, so
that half replies, stray replies and resets are possible.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

#: A reply (several lines with \n), "hang", "close", "reset", a coroutine function
#: over the connection, or a list: one for each use, the last for ever.
Step = str | bytes | Callable[["Heard"], Awaitable[str | None]] | Sequence[Any]


@dataclass
class Heard:
    """One connection, as the relay saw it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    commands: list[str] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)
    #: Bytes of a body whose end never came.
    torso: bytes = b""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, text: str | bytes) -> None:
        raw = text if isinstance(text, bytes) else wire(text)
        self.writer.write(raw)
        await self.writer.drain()

    def reset(self) -> None:
        """End with RST, as a crashed host or a firewall does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    @property
    def verbs(self) -> list[str]:
        return [c.split(" ")[0].split(":")[0].upper() for c in self.commands]


class ScriptedRelay:
    """``async with ScriptedRelay(RCPT="550 5.1.1 No such user") as relay: …``"""

    def __init__(
        self,
        *,
        offers: Sequence[str] = ("PIPELINING", "SIZE 50000000", "8BITMIME"),
        tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
        rcvbuf: int | None = None,
        **on: Step,
    ) -> None:
        self.heard: list[Heard] = []
        self.peak = 0
        self._now = 0
        self._offers = list(offers)
        self._tls = tls
        self._starttls = starttls
        self._rcvbuf = rcvbuf
        self._on: dict[str, Any] = {
            "GREETING": "220 relay.example ESMTP",
            "EHLO": self._ehlo,
            "HELO": "250 relay.example",
            "MAIL": "250 2.1.0 Ok",
            "RCPT": "250 2.1.5 Ok",
            "DATA": "354 Go on",
            "DOT": "250 2.0.0 Queued as 1",
            "RSET": "250 2.0.0 Ok",
            "NOOP": "250 2.0.0 Ok",
            "QUIT": "221 2.0.0 Bye",
            "STARTTLS": "220 2.0.0 Ready",
            **on,
        }
        self._uses: dict[str, int] = {}

    async def _ehlo(self, heard: Heard) -> str:
        lines = ["relay.example", *self._offers]
        if self._starttls and heard.writer.get_extra_info("ssl_object") is None:
            lines.append("STARTTLS")
        return "\n".join(f"250{'-' if n < len(lines) - 1 else ' '}{x}" for n, x in enumerate(lines))

    async def __aenter__(self) -> ScriptedRelay:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._rcvbuf)
        self._server = await asyncio.start_server(self._talk, sock=sock, ssl=self._tls, limit=2**26)
        self.port = sock.getsockname()[1]
        self._tasks: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def mails(self) -> list[bytes]:
        """Everything that was ended by a dot, as it stood on the wire without that dot."""
        return [mail for heard in self.heard for mail in heard.mails]

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        heard = Heard(reader, writer)
        self.heard.append(heard)
        self._now += 1
        self.peak = max(self.peak, self._now)
        try:
            await self._converse(heard)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._now -= 1
            self._tasks.discard(task)
            heard.ended.set()
            writer.close()
            with contextlib.suppress(Exception):
                # A failed handshake is never told to the writer (CPython 3.11).
                await asyncio.wait_for(writer.wait_closed(), 0.2)

    async def _converse(self, heard: Heard) -> None:
        if await self._step("GREETING", heard):
            return
        while True:
            line = await heard.reader.readline()
            if not line.endswith(b"\n"):
                return
            command = line.decode("utf-8", "replace").rstrip("\r\n")
            heard.commands.append(command)
            verb = heard.verbs[-1]
            reply = await self._step(verb if verb in self._on else "?", heard)
            if reply == "over":
                return
            if verb == "DATA" and reply == "354":
                if not await self._body(heard) or await self._step("DOT", heard) == "over":
                    return
            elif verb == "STARTTLS" and reply == "220" and self._starttls:
                await heard.writer.start_tls(self._starttls)
            elif verb == "AUTH" and reply == "334":
                continue
            elif verb == "QUIT":
                return

    async def _body(self, heard: Heard) -> bool:
        lines: list[bytes] = []
        while True:
            line = await heard.reader.readline()
            if line == b".\r\n":
                heard.mails.append(b"".join(lines))
                return True
            lines.append(line)
            if not line.endswith(b"\n"):
                heard.torso = b"".join(lines)
                return False

    async def _step(self, word: str, heard: Heard) -> str | None:
        """Do what is written for ``word``; gives the code said, or "over"."""
        step = self._on.get(word, "500 5.5.2 What?")
        if not isinstance(step, str | bytes) and not callable(step):
            use = self._uses.get(word, 0)
            self._uses[word] = use + 1
            step = step[min(use, len(step) - 1)]
        if callable(step):
            step = await step(heard)
        if step is None:
            return None
        if step == "close":
            return "over"
        if step == "reset":
            heard.reset()
            return "over"
        if step == "hang":
            await heard.reader.read()
            return "over"
        await heard.say(step)
        code = (step if isinstance(step, bytes) else step.encode())[:3].decode()
        if word == "GREETING":
            return None
        return code


def wire(text: str) -> bytes:
    return b"".join(line.encode() + b"\r\n" for line in text.split("\n"))


class Marks:
    """A marker that remembers."""

    def __init__(self, at_dot: Callable[[], None] | None = None) -> None:
        self.said: list[str] = []
        self._at_dot = at_dot

    def dot(self) -> None:
        self.said.append("dot")
        if self._at_dot:
            self._at_dot()

    def accepted(self) -> None:
        self.said.append("accepted")

    def refused(self) -> None:
        self.said.append("refused")
