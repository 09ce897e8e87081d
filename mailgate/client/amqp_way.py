"""The way to RabbitMQ: confirmed, and mandatory, so that what no queue takes is an error.

Owns a few idle connections a process, each used by one thread at a time. A connection
that was idle is looked at before it is used; one that fails is dropped. Never declares
anything: the queue is the gateway's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import ssl
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import amqp
from amqp.exceptions import AccessRefused, AMQPError, MessageNacked, NotAllowed

from mailgate.amqp_servers import Server
from mailgate.client.ways import Away, Missing, Shut

#: Connections kept open while nobody publishes.
KEPT = 8
#: Threads that publish for coroutines.
THREADS = 8
#: Seconds that a broker has for its part of a farewell: it may be long gone.
FAREWELL = 2.0

_NO_ROUTE = 312  # AMQP 0-9-1 section 1.8.3.3: basic.return


def options(server: Server, timeout: float) -> Server:
    """What ``amqp.Connection`` needs to know."""
    return {
        **server,
        "connect_timeout": timeout,
        "read_timeout": timeout,
        "write_timeout": timeout,
        # An idle program answers no heartbeats: what is dead shows when it is used.
        "heartbeat": 0,
        "client_properties": {"connection_name": "mailgate client"},
    }


class _Line:
    """One connection and its channel in confirm mode."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.connection = amqp.Connection(**settings)
        try:
            self.connection.connect()
            self.channel = self.connection.channel()
        except BaseException:
            self.drop()
            raise
        self.returned: list[int] = []
        self.channel.events["basic_return"].add(self._on_return)  # type: ignore[attr-defined]

    def _on_return(self, error: Any, exchange: str, key: str, message: Any) -> None:
        self.returned.append(int(error.code))

    @property
    def sound(self) -> bool:
        """Nothing is waiting to be read: an idle connection hears only its own end."""
        socket = self.connection.sock
        if socket is None:
            return False
        poll = select.poll()
        poll.register(socket, select.POLLIN)
        return not poll.poll(0)

    def drop(self) -> None:
        """Close the socket without a word."""
        self.connection.collect()


class AmqpWay:
    """Publishes on one RabbitMQ. ``timeout`` (seconds) bounds each step of one try."""

    def __init__(self, server: Server, queue: str, *, timeout: float, mandatory: bool) -> None:
        self._settings = options(server, timeout)
        self._queue = queue
        self._timeout = timeout
        self._mandatory = mandatory
        self._idle: deque[_Line] = deque(maxlen=KEPT)
        self._pid = os.getpid()
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def put(self, body: bytes, key: str) -> str:
        message = amqp.Message(
            body, content_type="application/json", delivery_mode=2, message_id=key
        )
        line: _Line | None = None
        try:
            line = self._line()
            line.returned.clear()
            line.channel.basic_publish_confirm(
                message,
                routing_key=self._queue,
                mandatory=self._mandatory,
                confirm_timeout=self._timeout,
            )
        except BaseException as error:
            if line is not None:
                line.drop()
            raise explained(error) from error
        returned = bool(line.returned)
        self._keep(line)
        if returned:
            raise Missing(f"there is no queue {self._queue} for it (basic.return {_NO_ROUTE})")
        return self._queue

    async def aput(self, body: bytes, key: str) -> str:
        self._at_home()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mailgate-client")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.put, body, key)

    def close(self) -> None:
        self._closed = True  # what is in use is closed by whoever uses it
        if self._pid == os.getpid():
            while self._idle:
                _politely(self._idle.pop())
        self._idle.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def _at_home(self) -> None:
        """After a fork the connections are our parent's: they are let go without a word."""
        if self._pid != os.getpid():
            # Closing a descriptor of ours says nothing on the wire; shutdown() would.
            self._idle = deque(maxlen=KEPT)
            self._threads = None
            self._pid = os.getpid()

    def _line(self) -> _Line:
        self._at_home()
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                return _Line(self._settings)
            if line.sound:
                return line
            line.drop()

    def _keep(self, line: _Line) -> None:
        if self._closed or len(self._idle) >= KEPT:
            _politely(line)
        else:
            self._idle.append(line)


def _politely(line: _Line) -> None:
    with contextlib.suppress(AMQPError, OSError):
        if line.connection.connected and (wire := line.connection.sock) is not None:
            wire.settimeout(FAREWELL)
            line.connection.close()
    line.drop()


def explained(error: BaseException) -> BaseException:
    """What an exception of the library means for another try."""
    if isinstance(error, AccessRefused | NotAllowed):
        return Shut(error.reply_text or str(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        return Shut(f"its certificate is not to be trusted: {error.verify_message}")
    if isinstance(error, MessageNacked):
        return Away("the broker has rejected it: the queue is full")
    if isinstance(error, TimeoutError):
        return Away("no answer in time")
    if isinstance(error, AMQPError | OSError):
        return Away(str(error) or type(error).__name__)
    return error
