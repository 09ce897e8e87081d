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
import threading
from collections import deque
from typing import cast

from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse

from mailgate.model.outcome import Reply
from mailgate.smtp.reply import MAX_REPLY, MalformedReply, ReplyReader

#: Bytes of one write of an upload.
_PIECE = 65536

#: Bytes that one look at the socket takes in at most. Over TLS what is beyond it comes at the
#: next look, and after the relay's end there is none: more than a reply may be.
_INBOX = 2 * MAX_REPLY


class _Inbox(threading.local):
    """Where a thread's event loop puts what it reads, until it is handed on at once.

    Else asyncio takes 256 KiB anew for each look, which is more work than the reply.
    """

    def __init__(self) -> None:
        self.room = memoryview(bytearray(_INBOX))


_inbox = _Inbox()


class Broken(Exception):
    """The connection ended, or had to be ended; it has been aborted already.

    ``fault`` is the field's word: ``connection_lost``, ``timeout`` or ``desync``.
    ``replies`` are those of the current group that came before. ``parting`` is
    the relay's unasked 421 (RFC 5321 section 3.8), if it said one. ``unsent`` is
    true when the last byte of that group provably never left this process, ``ours`` when
    nothing but our own wish ended the connection.
    """

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail
        self.replies: list[Reply] = []
        self.parting: Reply | None = None
        self.unsent = False
        self.ours = False


class Due:
    """The replies that are owed to one group of commands, and who waits for them."""

    __slots__ = ("count", "late", "replies", "tail", "timeout", "unsent", "waiter")

    def __init__(self, count: int) -> None:
        self.count = count
        self.replies: list[Reply] = []
        #: Seconds from when all before it is answered; none until somebody waits.
        self.timeout: float | None = None
        #: Bytes written behind the group that may still be here when all of it has left.
        self.tail = 0.0
        self.unsent = False
        #: What was asked before it got no answer in time.
        self.late = False
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Wire(SMTPProtocol, asyncio.BufferedProtocol):
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
        self._greeting = Due(1)
        #: What is owed, in the order of the replies.
        self._dues: deque[Due] = deque(() if silent else (self._greeting,))
        #: It ends as soon as the group before the one given up is answered.
        self._ending = False
        #: Bytes that were still here when it broke.
        self._left = 0
        # One timer for all groups, set anew only when it goes off or is too late.
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._patience = 0.0

    # --- what the session asks -------------------------------------------------

    async def exchange(self, data: bytes, count: int, timeout: float) -> list[Reply]:
        """Write ``data`` at once and return its ``count`` replies; raises ``Broken``.

        ``timeout`` (seconds) is for the whole group.
        """
        return await self.answers(self.ask(data, count), timeout)

    def ask(self, data: bytes, count: int) -> Due:
        """Write ``data`` at once, to which ``count`` replies are due; raises ``Broken``."""
        due = self._expect(count)
        self.say(data, due)
        return due

    def ask_on(self, data: bytes, more: bytes, count: int) -> tuple[Due, Due | None]:
        """Write ``data``, to which one reply is due, and ``more`` right behind it.

        To ``more`` ``count`` replies are due; None for it when it cannot follow now, and
        then nothing of it was written. Raises ``Broken``. Whether the end of ``data``
        has left stays known: in clear by the count of bytes, over TLS (where what is
        buffered has another length) because ``more`` waits for that.
        """
        due = self._expect(1)
        if not self.encrypted:
            behind = self._expect(count)
            due.tail = len(more)
            self.say(data + more, due)
            return due, behind
        self.say(data, due)
        if self.holds(due):
            return due, None
        behind = self._expect(count)
        due.tail = float("inf")
        try:
            self.say(more, behind)
        except Broken:
            # Whoever waits for the first reply is told.
            return due, None
        return due, behind

    async def greeting(self, timeout: float) -> Reply:
        """The reply that the relay gives unasked; raises ``Broken``."""
        return (await self.answers(self._greeting, timeout))[0]

    async def upload(self, data: bytes, timeout: float) -> Due:
        """Write a large body and wait until (nearly) none of it is buffered here.

        One reply is due from here on (``answers`` waits for it); when the relay gives
        it before the end of the body, this ends with the reply in place.
        ``timeout`` is for all of it. Raises ``Broken``.
        """
        due = self._expect(1)
        self._watch(timeout)
        # In pieces: TLS passes any one write down whole, however much waits there.
        for start in range(0, len(data), _PIECE):
            self.say(data[start : start + _PIECE], due)
            while self._paused and not due.replies:
                await self._wait(due)
            if due.replies:
                break
        return due

    def give_up(self, due: Due) -> None:
        """Nobody wants these replies any more: end as soon as what came before is answered."""
        if self.behind(due):
            self._ending = True
        else:
            self.abort()

    def behind(self, due: Due) -> bool:
        """Whether something that was asked before it has not been answered."""
        return due in self._dues and due is not self._dues[0]

    def hurry(self, due: Due) -> None:
        """Where it is still behind, nobody shall wait for it any longer: ``Broken`` is raised."""
        if self.behind(due):
            self._ending = due.late = True
            due.wake()

    @property
    def in_step(self) -> bool:
        """Alive, and the relay has said nothing that was not asked for."""
        return self.broken is None and not self._ending and self.is_connected

    @property
    def encrypted(self) -> bool:
        return (
            self.transport is not None and self.transport.get_extra_info("ssl_object") is not None
        )

    def holds(self, due: Due) -> bool:
        """Whether the end of the group is provably still in this process."""
        return self._buffered > due.tail

    @property
    def _buffered(self) -> int:
        """Bytes written that are still here, at least.

        The write buffer's limits make ``pause_writing`` and ``resume_writing``
        follow its being empty, so that this survives the buffer itself.
        """
        below = self._bottom
        size = below.get_write_buffer_size() if below is not None else 0
        return max(size, int(self._paused))

    async def encrypt(self, context: ssl.SSLContext, hostname: str, timeout: float) -> None:
        """TLS from the first byte; the greeting comes after. Raises what the loop raises."""
        if self.broken is not None:
            raise self.broken
        # What was said in clear is broken off above, and from here nothing in clear
        # reaches us: the loop's first act is to put TLS between.
        self._dues.append(self._greeting)
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
        broken = Broken("connection_lost", "aborted by us")
        broken.ours = True
        self._break(broken)

    # --- what the transport says -----------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._bottom = cast(asyncio.WriteTransport, transport)
        self._limit_buffer()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _inbox.room

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(_inbox.room[:nbytes]))

    def data_received(self, data: bytes) -> None:
        if self.broken is not None:
            return
        reader, dues = self._reader, self._dues
        reader.feed(data)
        try:
            while dues:
                reply = reader.take()
                if reply is None:
                    # Part of a reply that is due: wait for the rest.
                    return
                due = dues[0]
                due.replies.append(reply)
                if len(due.replies) == due.count and not self._next_due():
                    return
            if reader.pending:
                self._break(self._unasked())
        except MalformedReply as error:
            self._break(Broken("desync", str(error)))

    def _next_due(self) -> bool:
        """The first group has all its replies: it is the next one's turn, if we go on."""
        self._dues.popleft().wake()
        if self._ending:
            self._break(Broken("connection_lost", "given up"))
            return False
        if self._dues and (timeout := self._dues[0].timeout) is not None:
            self._watch(timeout)
        return True

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
        if self._dues:
            self._dues[0].wake()

    async def read_response(self, timeout: float | None = None) -> SMTPResponse:
        """What aiosmtplib's own ``start_tls`` reads with."""
        reply = (await self.answers(self._expect(1), timeout or 60.0))[0]
        return SMTPResponse(reply.code, reply.text)

    def upgraded(self) -> None:
        """Call after ``start_tls``: the new transport keeps the same limits."""
        self._limit_buffer()

    # --- within ------------------------------------------------------------------

    def _limit_buffer(self) -> None:
        # One byte, not none: asyncio's TLS transport would pause even when empty.
        cast(asyncio.WriteTransport, self.transport).set_write_buffer_limits(high=1, low=0)

    def _expect(self, count: int) -> Due:
        due = Due(count)
        if self.broken is not None:
            # Nothing of this group was written.
            due.unsent = True
            raise self._broke(due)
        self._dues.append(due)
        return due

    def say(self, data: bytes, due: Due) -> None:
        """Write ``data``, which belongs to ``due``, at once; raises ``Broken``."""
        transport = cast(asyncio.WriteTransport | None, self.transport)
        if self.broken is None and transport is not None and not transport.is_closing():
            transport.write(data)
            if not transport.is_closing():
                return
        # Either nothing was written, or asyncio tried to send at once and failed,
        # and then the kernel took none of it.
        due.unsent = True
        self._break(Broken("connection_lost", "connection lost"))
        raise self._broke(due)

    async def answers(self, due: Due, timeout: float) -> list[Reply]:
        """The replies to a group, when the last of them is there; raises ``Broken``.

        ``timeout`` (seconds) counts from when all that was asked before is answered.
        """
        if len(due.replies) < due.count:
            due.timeout = timeout
            if self._dues and due is self._dues[0]:
                self._watch(timeout)
            while len(due.replies) < due.count:
                await self._wait(due)
        if self.broken is not None:
            # The last reply and the end came together, or the stream is in doubt.
            raise self._broke(due)
        return due.replies

    async def _wait(self, due: Due) -> None:
        """Wait until something happens on the connection; raises ``Broken``."""
        if self.broken is None:
            due.waiter = self._loop.create_future()
            try:
                await due.waiter
            finally:
                due.waiter = None
        if self.broken is not None:
            raise self._broke(due)
        if due.late:
            raise Broken("connection_lost", "the message before it got no answer")

    def _watch(self, timeout: float) -> None:
        """Break in ``timeout`` seconds unless all that is due has come."""
        self._patience = timeout
        self._deadline = self._loop.time() + timeout
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        if not self._dues:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._time_out)
        else:
            self._break(Broken("timeout", f"nothing happened in {self._patience:.3g} s"))

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
            self._left = self._buffered
            self.broken = broken
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        transport = cast(asyncio.WriteTransport | None, self.transport)
        if transport is not None:
            transport.abort()
        for due in self._dues:
            due.wake()

    def _broke(self, due: Due) -> Broken:
        """What ended it, as it is for this group."""
        assert self.broken is not None
        self.broken.replies = due.replies
        self.broken.unsent = due.unsent or self._left > due.tail
        return self.broken
