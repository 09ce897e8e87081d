"""An SMTP server with a book of its own: the other side's word on what mailgate did.

Usage: ``python sink.py PORT BOOK PLANS``. PLANS is a JSON object: what is before a
``+`` in a recipient's local part names a list of answers, the n-th transaction for
that recipient gets the n-th, and the last one stays. Answers: ``250``; ``451 …`` or
``550 …`` to RCPT; ``dot 451 …`` to the final dot; ``drop`` (the mail is taken and the
connection closed without an answer), ``reset`` (the same by RST), ``half`` (the same after
half an answer), ``mute`` (taken, and nothing is ever answered); ``slow SECONDS`` (then
250); ``hang`` (RCPT is noted and never answered). The name ``EHLO`` stands for connections:
the n-th that is answered ``plain`` is offered no pipelining. Every end of a transaction is
a line of JSON in BOOK, written before the answer leaves. BOOK.doors has a line for each
connection that comes (``TIME 1``) or goes (``TIME -1``), BOOK.stalls one for each time
(``FROM TO``) in which the machine did not let the sink work: what came meanwhile has the
time of its end. Imports nothing but the standard library.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import socket
import struct
import sys
import time

_ADDRESS = re.compile(rb"<([^>]*)>")
_HEADER = re.compile(rb"(?im)^(Message-ID|Date):[ \t]*(.*(?:\r\n[ \t].*)*)\r\n")
_OFFERS = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 50000000\r\n"
#: How often it looks whether it is let work, and from which delay on it is not (seconds).
_PULSE, _STALL = 0.01, 0.02
_PLAIN = _OFFERS.replace(b"250-PIPELINING\r\n", b"")


class Book:
    def __init__(self, path: str, plans: dict[str, list[str]]) -> None:
        self._fd, self._doors, self._stalls = (
            os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for name in (path, f"{path}.doors", f"{path}.stalls")
        )
        self._plans = plans
        self._seen: dict[str, int] = {}

    def answer(self, recipient: str) -> str:
        """What this transaction for the recipient gets."""
        plan = self._plans.get(recipient.partition("@")[0].partition("+")[0]) or ["250"]
        n = self._seen.get(recipient, 0)
        self._seen[recipient] = n + 1
        return plan[min(n, len(plan) - 1)]

    def door(self, change: int) -> None:
        """A connection has come (1) or gone (-1)."""
        os.write(self._doors, b"%d %d\n" % (time.time_ns(), change))

    def stall(self, begun: int, end: int) -> None:
        """Between these times nothing was read."""
        os.write(self._stalls, b"%d %d\n" % (begun, end))

    def write(self, **line: object) -> None:
        os.write(self._fd, json.dumps(line).encode() + b"\n")


class Conversation(asyncio.Protocol):
    def __init__(self, book: Book) -> None:
        self._book = book
        self._buffer = bytearray()
        self._in_body = False
        self._waiting = False
        self._sender = self._recipient = ""
        self._answer = ""
        self._mail_at = 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._book.door(1)
        self._peer = transport.get_extra_info("peername")[1]
        transport.write(b"220 sink ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._book.door(-1)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._work()

    def _work(self) -> None:
        while not self._waiting and not self.transport.is_closing():
            if self._in_body:
                if self._buffer.startswith(b".\r\n"):
                    end, body = 3, b""
                else:
                    at = self._buffer.find(b"\r\n.\r\n")
                    if at < 0:
                        return
                    end, body = at + 5, bytes(self._buffer[: at + 2])
                del self._buffer[:end]
                self._in_body = False
                self._end(body)
                continue
            at = self._buffer.find(b"\r\n")
            if at < 0:
                return
            line = bytes(self._buffer[:at])
            del self._buffer[: at + 2]
            self._command(line)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        say = self.transport.write
        if verb == b"EHLO":
            say(_PLAIN if self._book.answer("EHLO") == "plain" else _OFFERS)
        elif verb == b"MAIL":
            self._mail_at = time.time_ns()
            self._sender, self._recipient = _address(line), ""
            say(b"250 2.1.0 Ok\r\n")
        elif verb == b"RCPT":
            recipient = _address(line)
            self._answer = self._book.answer(recipient)
            if self._answer == "hang":
                self._note(recipient, "hang")
                self._waiting = True
            elif self._answer[0] in "45":
                self._note(recipient, self._answer)
                say(self._answer.encode() + b"\r\n")
            else:
                self._recipient = recipient
                say(b"250 2.1.5 Ok\r\n")
        elif verb == b"DATA":
            if self._recipient:
                self._in_body = True
                say(b"354 End data with <CR><LF>.<CR><LF>\r\n")
            else:
                say(b"554 5.5.1 No valid recipients\r\n")
        elif verb in (b"RSET", b"NOOP"):
            say(b"250 2.0.0 Ok\r\n")
        elif verb == b"QUIT":
            say(b"221 2.0.0 Bye\r\n")
            self.transport.close()
        else:
            say(b"502 5.5.2 Not implemented\r\n")

    def _end(self, body: bytes) -> None:
        kind, _, rest = self._answer.partition(" ")
        if kind == "slow":
            self._waiting = True
            asyncio.get_running_loop().call_later(float(rest), self._accept, body)
        elif kind == "dot":
            self._note(self._recipient, rest, body)
            self.transport.write(rest.encode() + b"\r\n")
        elif kind in ("drop", "reset", "half", "mute"):
            self._note(self._recipient, kind, body)
            self._leave(kind)
        else:
            self._accept(body)

    def _leave(self, kind: str) -> None:
        """What was taken gets no answer that can be understood."""
        if kind == "mute":
            self._waiting = True
        elif kind == "half":
            self.transport.write(b"250 2.0")
            self.transport.close()
        else:
            if kind == "reset":
                line = self.transport.get_extra_info("socket")
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def _accept(self, body: bytes) -> None:
        """Taken, also when the other side has gone meanwhile: a relay cannot know that."""
        self._note(self._recipient, "250", body)
        self.transport.write(b"250 2.0.0 Ok: taken\r\n")
        if self._waiting:
            self._waiting = False
            self._work()

    def _note(self, recipient: str, answer: str, body: bytes = b"") -> None:
        headers = {
            k.lower(): v for k, v in _HEADER.findall(body.partition(b"\r\n\r\n")[0] + b"\r\n")
        }
        self._book.write(
            mail_at=self._mail_at,
            end_at=time.time_ns(),
            sender=self._sender,
            recipient=recipient,
            answer=answer,
            message_id=headers.get(b"message-id", b"").decode("ascii", "replace"),
            date=headers.get(b"date", b"").decode("ascii", "replace"),
            digest=hashlib.sha256(body).hexdigest(),
            peer=self._peer,
        )


def _address(line: bytes) -> str:
    found = _ADDRESS.search(line)
    return found[1].decode("utf-8", "replace") if found else ""


def _be_punctual() -> None:
    """Its times are evidence: on a busy machine it may not wait for its turn, where allowed."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


async def _watch(book: Book) -> None:
    while True:
        begun = time.time_ns()
        await asyncio.sleep(_PULSE)
        end = time.time_ns()
        if end - begun > (_PULSE + _STALL) * 1e9:
            book.stall(begun, end)


async def main() -> None:
    port, path, plans = sys.argv[1:]
    _be_punctual()
    book = Book(path, json.loads(plans))
    server = await asyncio.get_running_loop().create_server(
        lambda: Conversation(book), "127.0.0.1", int(port), backlog=1024
    )
    watching = asyncio.create_task(_watch(book))
    await server.serve_forever()
    watching.cancel()


if __name__ == "__main__":
    asyncio.run(main())
