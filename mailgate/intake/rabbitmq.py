"""RabbitMQ as a door: a thread of its own, since the AMQP client is synchronous.

Owns the queue's declaration, consuming with a prefetch, acknowledging, heartbeats,
reconnecting and failover. Never requeues or rejects while running: while the
journal is away, unacknowledged messages simply stay; when RabbitMQ's consumer
timeout closes the channel over that, we consume anew and get them again.

Messages are taken as raw bytes below kombu's decoding, which would unpack
compressed bodies without a cap and fail on unknown content types.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import amqp
from amqp import spec

from mailgate.amqp_servers import servers
from mailgate.contract.read import encoding_fault
from mailgate.intake.amqp_link import PATIENCE, connection, held, read_ahead
from mailgate.intake.door import BATCH_BYTES, Backoff, Delivery, DoorClosed, Trouble

#: Consumers rank by lot, anew with each connection, so that hardly two are equal.
_RANKS = 2**31
#: Most frames read from the socket before the receiver is told; a message is three.
_FRAMES_AT_ONCE = 1500

_log = logging.getLogger(__name__)


class RabbitDoor:
    """A quorum queue; one that exists with other arguments is used as it is.

    ``url`` may hold several URLs separated by ``;``. ``prefetch`` bounds what is
    unacknowledged, so a batch can be at the journal while the next one arrives.
    Of several doors at one queue the broker fills one before it turns to the next: ten that
    share what one can take in would each write batches a tenth as large.
    ``most_bytes`` bounds both together; RabbitMQ knows no such bound, so that the door
    does not read on while so much waits, and the broker waits with the rest.
    ``producer`` is whose own queue it is: it has an exchange of the same name.
    """

    def __init__(
        self,
        url: str,
        queue: str,
        *,
        prefetch: int = 500,
        most_bytes: int = BATCH_BYTES,
        producer: str | None = None,
        trouble: Trouble | None = None,
    ) -> None:
        self._producer = producer
        self._servers = deque(servers(url))
        self._queue = queue
        self._prefetch = min(65535, 2 * prefetch)
        self._trouble = trouble or _log.warning
        # Half of it for the batch in hand, half for the next.
        self._most_bytes = most_bytes // 2
        self._arrived: deque[Delivery] = deque()
        self._waiting = 0
        self._counting = threading.Lock()
        self._orders: deque[Callable[[], None]] = deque()
        self._unacked: set[int] = set()
        # Who waits for an answer of the channel, in order.
        self._asked: deque[Callable[[bool | None], None]] = deque()
        # The session in which somebody was told that it cannot be said.
        self._owed = 0
        self._session = 0
        self._channel: Any = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = asyncio.Event()

    async def open(self) -> None:
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="amqp-intake", daemon=True)
            self._thread.start()

    async def receive(self, most: int, wait: float) -> Sequence[Delivery]:
        if self._stopping:
            raise DoorClosed
        if not self._arrived and wait > 0:
            self._ready.clear()
            # Something may have come between the look and the clearing.
            if not self._arrived:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._ready.wait()
        if self._stopping:
            raise DoorClosed
        found: list[Delivery] = []
        size = 0
        with self._counting:
            full = self._full()
            while self._arrived and len(found) < most and size < self._most_bytes:
                found.append(self._arrived.popleft())
                size += len(found[-1].body)
            self._waiting -= size
        if full:
            # The thread stopped reading.
            self._poke()
        return found

    async def done(self, deliveries: Sequence[Delivery]) -> bool | None:
        """What is anonymous could not be known again, so that it is done when the broker has
        read so: a channel answers in order, and its answer to anything later will do. It
        stands behind all that is on its way to us; None when there is no room to read that.
        """
        sure = not deliveries or any(d.identity is None for d in deliveries)
        return await self._ordered(deliveries, self._acknowledge, sure=sure)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            await self._ordered(deliveries, self._give_back)

    async def close(self) -> None:
        self._stopping = True
        self._ready.set()
        if self._thread is not None:
            self._poke()
            await asyncio.to_thread(self._thread.join, 2 * PATIENCE)
            self._thread = None
            self._wake.close()
            self._woken.close()

    async def _ordered(
        self,
        deliveries: Sequence[Delivery],
        act: Callable[[set[int]], None],
        *,
        sure: bool = False,
    ) -> bool | None:
        """Have the thread do something with the tags of its present session."""
        if self._stopping or self._loop is None:
            return not deliveries
        loop = self._loop
        answer: asyncio.Future[bool | None] = loop.create_future()

        def say(ok: bool | None) -> None:
            loop.call_soon_threadsafe(_settle, answer, ok)

        def order() -> None:
            ok = False
            try:
                tags = {
                    cast(int, d.handle) for d in deliveries if d.session == self._session
                } & self._unacked
                if self._channel is not None and tags:
                    act(tags)
                    self._unacked -= tags
                owed = self._owed == self._session != 0
                ok = len(tags) == len(deliveries) if deliveries else owed
                if sure and ok and self._channel is not None:
                    self._ask(say)
                    return
            except BaseException:
                say(False)
                raise
            say(ok)

        self._orders.append(order)
        self._poke()
        return await answer

    def _poke(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake.send(b"\0")

    # What follows runs on the thread.

    def _run(self) -> None:
        backoff = Backoff()
        away = False
        while not self._stopping:
            try:
                with self._connected() as connection:
                    if away:
                        self._trouble("RabbitMQ intake: consuming again")
                    away = False
                    backoff.reset()
                    self._consume(connection)
            except Exception as error:  # noqa: BLE001 (py-amqp fails in many ways; all mean: anew)
                if not away and not self._stopping:
                    self._trouble(f"RabbitMQ intake: {type(error).__name__}: {error}")
                away = True
                self._servers.rotate(-1)
                self._end_session()
                self._pause(backoff.wait())
            finally:
                self._end_session()
        self._obey()

    def _pause(self, seconds: float) -> None:
        """Wait, still answering orders (with: too late), until it is time or we stop."""
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            _readable(self._woken, timeout=left)
            self._obey()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        made: Any = connection(self._servers[0])
        try:
            made.connect()
            made.sock.settimeout(PATIENCE)
            read_ahead(made)
            self._start_session(made)
            yield made
            # A graceful end: nothing new comes, and what is left goes back by itself.
            # With much on its way to us its answer would stand behind all of that.
            if not self._full():
                if self._channel is not None:
                    self._channel.close()
                made.close()
        finally:
            # After trouble without ceremony: the broker may never answer a farewell.
            made.collect()

    def _start_session(self, connection: Any) -> None:
        channel = declared(connection, self._queue)
        if self._producer is not None:
            channel = _with_exchange(connection, channel, self._queue)
        channel.auto_decode = False
        self._session = secrets.randbits(62)
        channel.basic_qos(0, self._prefetch, False)
        channel._callbacks[spec.Basic.QosOk] = self._answered
        try:
            channel.basic_consume(
                self._queue,
                callback=self._on_message,
                on_cancel=_cancelled,
                arguments={"x-priority": secrets.randbelow(_RANKS)},
            )
        except TimeoutError:
            # Known of a node killed within seconds of the queue's declaration.
            raise TimeoutError(
                f"the queue {self._queue} does not answer; as a quorum queue it has no leader"
            ) from None
        self._channel = channel

    def _end_session(self) -> None:
        self._session = 0
        self._channel = None
        self._unacked.clear()
        self._leave_open(False)
        self._asked.clear()
        with self._counting:
            self._arrived.clear()
            self._waiting = 0
        self._obey()

    def _consume(self, connection: Any) -> None:
        sock = connection.sock
        while not self._stopping:
            self._obey()
            if self._full():
                self._leave_open(None)
                # The broker's heartbeats stand behind what we do not read; ours go on.
                connection.send_heartbeat()
                _readable(self._woken, timeout=1.0)
                continue
            if held(connection) or sock in _readable(sock, self._woken, timeout=1.0):
                self._drain(connection)
            connection.heartbeat_tick()
        with contextlib.suppress(Exception):  # closing the channel gives everything back too
            self._obey()

    def _drain(self, connection: Any) -> None:
        """Read what the socket holds; then tell the receiver, once."""
        sock = connection.sock
        try:
            for _ in range(_FRAMES_AT_ONCE):
                # Its socket waits ``PATIENCE`` for the rest of a frame.
                connection.on_inbound_frame(connection.transport.read_frame())
                if self._full() or not (held(connection) or _readable(sock, timeout=0)):
                    break
        finally:
            self._tell()

    def _tell(self) -> None:
        if self._arrived and self._loop is not None:
            self._loop.call_soon_threadsafe(self._ready.set)

    def _full(self) -> bool:
        return self._waiting >= self._most_bytes

    def _on_message(self, message: Any) -> None:
        tag = message.delivery_info["delivery_tag"]
        self._unacked.add(tag)
        properties = message.properties
        body = message.body
        self._came(
            Delivery(
                body=body if isinstance(body, bytes) else bytes(body or b""),
                source="amqp",
                identity=properties.get("message_id") or None,
                redelivered=bool(message.delivery_info["redelivered"]),
                refusal=_refusal(properties),
                handle=tag,
                user_id=properties.get("user_id") or None,
                session=self._session,
                producer=self._producer,
            )
        )

    def _came(self, delivery: Delivery) -> None:
        with self._counting:
            self._arrived.append(delivery)
            self._waiting += len(delivery.body)

    def _acknowledge(self, tags: set[int]) -> None:
        last = max(tags)
        if sum(1 for tag in self._unacked if tag <= last) == len(tags):
            self._channel.basic_ack(last, multiple=True)
        else:
            for tag in sorted(tags):
                self._channel.basic_ack(tag)

    def _ask(self, say: Callable[[bool | None], None]) -> None:
        """Have ``say`` told True when the channel has answered to something.

        py-amqp itself would wait for the answer, and read whatever comes before it.
        """
        self._channel.send_method(spec.Basic.Qos, "lBb", (0, self._prefetch, False))
        self._asked.append(say)

    def _answered(self, *_: Any) -> None:
        if self._asked:
            self._asked.popleft()(True)

    def _leave_open(self, known: bool | None) -> None:
        """Let nobody wait for what will be answered late, or never."""
        for number, say in enumerate(self._asked):
            say(known)
            self._asked[number] = _nothing
            self._owed = self._session

    def _give_back(self, tags: set[int]) -> None:
        for tag in sorted(tags):
            self._channel.basic_reject(tag, requeue=True)

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096, socket.MSG_DONTWAIT):
                pass
        while self._orders:
            self._orders.popleft()()


def declared(connection: Any, queue: str) -> Any:
    """A channel on which the queue is known to exist, as it is or newly made."""
    channel = connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except amqp.NotFound:
        channel = connection.channel()
        arguments: dict[str, Any] = {"x-queue-type": "quorum"}
        if _major(connection) >= 4:
            # From 4.0 a quorum queue drops what came back twenty times unless told
            # otherwise; before 4.0 a negative limit means none is allowed at all.
            arguments["x-delivery-limit"] = -1
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
    return channel


def _with_exchange(connection: Any, channel: Any, queue: str) -> Any:
    """A channel on which the queue also has an exchange of its name.

    Permission to publish is by exchange, and the default exchange leads to every queue.
    """
    try:
        channel.exchange_declare(queue, "fanout", passive=True)
    except amqp.NotFound:
        channel = connection.channel()
        channel.exchange_declare(queue, "fanout", durable=True, auto_delete=False)
    channel.queue_bind(queue, exchange=queue)
    return channel


def _readable(*sockets: Any, timeout: float) -> list[Any]:
    """Which of the sockets have something to read within ``timeout`` seconds."""
    poll = select.poll()  # select() cannot take descriptors above 1023
    numbers = {sock.fileno(): sock for sock in sockets}
    for number in numbers:
        poll.register(number, select.POLLIN)
    return [numbers[number] for number, _ in poll.poll(timeout * 1000)]


def _nothing(_: bool | None) -> None:
    """For who does not wait any more."""


def _settle(answer: asyncio.Future[bool | None], ok: bool | None) -> None:
    if not answer.done():
        answer.set_result(ok)


def _cancelled(consumer_tag: str) -> None:
    raise amqp.ConsumerCancelled(f"the queue was deleted under consumer {consumer_tag}")


def _refusal(properties: dict[str, Any]) -> str | None:
    headers = properties.get("application_headers") or {}
    if headers.get("compression"):
        return "The message is compressed (header compression); publish plain JSON."
    encoded = encoding_fault(properties.get("content_encoding"))
    return f"The message {encoded}." if encoded else None


def _major(connection: Any) -> int:
    version = str(connection.server_properties.get("version", "0"))
    major = version.partition(".")[0]
    return int(major) if major.isdigit() else 0
