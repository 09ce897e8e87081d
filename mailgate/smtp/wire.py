"""One connection's bytes: commands out in groups, exactly as many replies in.

Owns the pairing of commands and replies, timeouts, and the abort. aiosmtplib's
protocol gives the transport, flow control and STARTTLS; its SMTP class is not
used, because it closes (and so flushes a dot that was given up, RFC 1047) where
only an abort is safe, and keeps no phase. Private names of aiosmtplib 5.1.3 are
relied on: the version is pinned, and tests/unit/smtp/test_wire.py holds the
contract. Never decides what a reply means.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse

from mailgate.model.outcome import Reply
from mailgate.smtp.reply import MalformedReply, ReplyReader

#: Bytes of one write of an upload.
_PIECE = 65536


class Broken(Exception):
    """The connection ended, or had to be ended; it has been aborted already.

    ``fault`` is the field's word: ``connection_lost``, ``timeout`` or ``desync``.
    ``replies`` are those of the current group that came before. ``parting`` is
    the relay's unasked 421 (RFC 5321 section 3.8), if it said one. ``unsent`` is
    true when the last byte written provably never left this process.
    """

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail
        self.replies: list[Reply] = []
        self.parting: Reply | None = None
        self.unsent = False


class Wire(SMTPProtocol):
    """A connection that is either in step with its relay or aborted.

    With ``silent`` the relay may say nothing before ``encrypt``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, silent: bool = False) -> None:
        super().__init__(loop=loop)
        self.broken: Broken | None = None
        self._reader = ReplyReader()
        #: The transport below TLS, or the only one.
        self._bottom: asyncio.WriteTransport | None = None
        # The greeting comes unasked.
        self._due = 0 if silent else 1
        self._replies: list[Reply] = []
        self._waiter: asyncio.Future[None] | None = None

    # --- what the session asks -------------------------------------------------

    async def exchange(self, data: bytes, count: int, timeout: float) -> list[Reply]:
        """Write ``data`` at once and return its ``count`` replies; raises ``Broken``.

        ``timeout`` (seconds) is for the whole group.
        """
        self.ask(data, count)
        return await self.answers(timeout)

    def ask(self, data: bytes, count: int) -> None:
        """Write ``data`` at once, to which ``count`` replies are due; raises ``Broken``."""
        self._expect(count)
        self.say(data)

    async def greeting(self, timeout: float) -> Reply:
        """The reply that the relay gives unasked; raises ``Broken``."""
        return (await self.answers(timeout))[0]

    async def upload(self, data: bytes, timeout: float) -> Reply | None:
        """Write a large body and wait until (nearly) none of it is buffered here.

        One reply is due from here on (``answers`` waits for it); returns it when
        the relay gives it before the end of the body. ``timeout`` is for all of it.
        Raises ``Broken``.
        """
        self._expect(1)
        end = self._loop.time() + timeout
        # In pieces: TLS passes any one write down whole, however much waits there.
        for start in range(0, len(data), _PIECE):
            self.say(data[start : start + _PIECE])
            while self._paused and not self._replies:
                await self._sleep(end - self._loop.time())
            if self._replies:
                return self._replies[0]
        return None

    @property
    def in_step(self) -> bool:
        """Alive, and the relay has said nothing that was not asked for."""
        return self.broken is None and self.is_connected

    @property
    def encrypted(self) -> bool:
        return (
            self.transport is not None and self.transport.get_extra_info("ssl_object") is not None
        )

    @property
    def holds_bytes(self) -> bool:
        """Whether the end of what was written is provably still in this process.

        The write buffer's limits make ``pause_writing`` and ``resume_writing``
        follow its being empty, so that this survives the buffer itself.
        """
        below = self._bottom
        return self._paused or (below is not None and below.get_write_buffer_size() > 0)

    async def encrypt(self, context: ssl.SSLContext, hostname: str, timeout: float) -> None:
        """TLS from the first byte; the greeting comes after. Raises what the loop raises."""
        if self.broken is not None:
            raise self.broken
        # What was said in clear is broken off above, and from here nothing in clear
        # reaches us: the loop's first act is to put TLS between.
        self._due = 1
        tls = await self._loop.start_tls(
            cast(asyncio.WriteTransport, self.transport),
            self,
            context,
            server_hostname=hostname,
            ssl_handshake_timeout=timeout,
        )
        self.transport = tls
        self._over_ssl = True
        self.upgraded()

    def abort(self) -> None:
        """End it now; nothing that is still buffered leaves."""
        self._break(Broken("connection_lost", "aborted by us"))

    # --- what the transport says -----------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._bottom = cast(asyncio.WriteTransport, transport)
        self._limit_buffer()

    def data_received(self, data: bytes) -> None:
        if self.broken is not None:
            return
        reader, replies = self._reader, self._replies
        reader.feed(data)
        try:
            while len(replies) < self._due:
                reply = reader.take()
                if reply is None:
                    # Part of a reply that is due: wait for the rest.
                    return
                replies.append(reply)
            if reader.pending:
                self._break(self._unasked())
                return
        except MalformedReply as error:
            self._break(Broken("desync", str(error)))
            return
        self._wake()

    def eof_received(self) -> bool:
        # Returning makes the transport close, which would flush what is buffered:
        # abort first.
        self._break(Broken("connection_lost", "the relay closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(Broken("connection_lost", str(exc) if exc else "connection lost"))
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wake()

    async def read_response(self, timeout: float | None = None) -> SMTPResponse:
        """What aiosmtplib's own ``start_tls`` reads with."""
        self._expect(1)
        reply = (await self.answers(timeout or 60.0))[0]
        return SMTPResponse(reply.code, reply.text)

    def upgraded(self) -> None:
        """Call after ``start_tls``: the new transport keeps the same limits."""
        self._limit_buffer()

    # --- within ------------------------------------------------------------------

    def _limit_buffer(self) -> None:
        # One byte, not none: asyncio's TLS transport would pause even when empty.
        cast(asyncio.WriteTransport, self.transport).set_write_buffer_limits(high=1, low=0)

    def _expect(self, count: int) -> None:
        if self.broken is not None:
            # Nothing of this group was written, so none of the earlier replies is its own.
            self.broken.replies = []
            self.broken.unsent = True
            raise self.broken
        self._replies = []
        self._due = count

    def say(self, data: bytes) -> None:
        """Write ``data`` at once; raises ``Broken``."""
        transport = cast(asyncio.WriteTransport | None, self.transport)
        if self.broken is None and transport is not None and not transport.is_closing():
            transport.write(data)
            if not transport.is_closing():
                return
        # Either nothing was written, or asyncio tried to send at once and failed,
        # and then the kernel took none of it.
        self._break(Broken("connection_lost", "connection lost"))
        assert self.broken is not None
        self.broken.unsent = True
        self.broken.replies = self._replies
        raise self.broken

    async def answers(self, timeout: float) -> list[Reply]:
        """The replies that are due, when the last of them is there; raises ``Broken``."""
        while len(self._replies) < self._due:
            await self._sleep(timeout)
        replies = self._replies
        self._due, self._replies = 0, []
        if self.broken is not None:
            # The last reply and the end came together, or the stream is in doubt.
            self.broken.replies = replies
            raise self.broken
        return replies

    async def _sleep(self, timeout: float) -> None:
        """Wait until something happens on the connection; raises ``Broken``."""
        if self.broken is None:
            self._waiter = self._loop.create_future()
            timer = self._loop.call_later(timeout, self._time_out, timeout)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self.broken is not None:
            self.broken.replies = self._replies
            raise self.broken

    def _time_out(self, timeout: float) -> None:
        self._break(Broken("timeout", f"nothing happened in {timeout:.3g} s"))

    def _unasked(self) -> Broken:
        """The relay said more than was asked. A 421 it may say at any time."""
        said = self._reader.take()
        broken = Broken("desync", f"unasked reply: {said}" if said else "unasked bytes")
        if said is not None and said.code == 421 and not self._reader.pending:
            broken = Broken("connection_lost", str(said))
            broken.parting = said
        return broken

    def _break(self, broken: Broken) -> None:
        if self.broken is None:
            broken.unsent = self.holds_bytes
            self.broken = broken
        transport = cast(asyncio.WriteTransport | None, self.transport)
        if transport is not None:
            transport.abort()
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
