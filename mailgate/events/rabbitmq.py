"""A topic exchange on RabbitMQ, with publisher confirms a batch at a time.

Owns the exchange's declaration, the connection, and what a confirm means. The AMQP
client is synchronous, so that each call works in a thread. Never declares a queue:
what producers listen to is theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import amqp

from mailgate.amqp_servers import servers
from mailgate.contract.event import EXCHANGE
from mailgate.events.document import Post
from mailgate.events.frames import frames
from mailgate.events.outlet import OutletAway
from mailgate.intake.amqp_link import PATIENCE, connection, read_ahead

T = TypeVar("T")

#: Seconds between two looks whether the broker has something to say.
_BEAT = 5.0
#: Seconds for a batch to be confirmed: a quorum may have to be found first.
_CONFIRMED = 30.0


class RabbitOutlet:
    """``url`` may name several brokers, of which the first that answers is used."""

    def __init__(self, url: str) -> None:
        self._servers = deque(servers(url))
        self._link: Any = None
        self._channel: Any = None
        #: The delivery tag of the newest message: they count from 1 in each channel.
        self._tag = 0
        self._waiting: set[int] = set()
        self._nacked: set[int] = set()
        self._looked = 0.0

    async def open(self) -> None:
        await asyncio.to_thread(self._surely, lambda: None)

    async def send(self, posts: Sequence[Post]) -> frozenset[str | None]:
        return await asyncio.to_thread(self._surely, lambda: self._send(posts))

    async def beat(self) -> None:
        if self._link is not None and time.monotonic() - self._looked > _BEAT:
            await asyncio.to_thread(self._surely, self._listen)

    async def close(self) -> None:
        link, self._link, self._channel = self._link, None, None
        if link is not None:
            await asyncio.to_thread(_part, link)

    def _surely(self, act: Callable[[], T]) -> T:
        """Do it on a connection; whatever goes wrong, the next time is on another."""
        try:
            if self._link is None:
                self._connect()
            return act()
        except Exception as error:  # py-amqp fails in many ways; all mean: anew
            link, self._link, self._channel = self._link, None, None
            self._servers.rotate(-1)
            if link is not None:
                # Without ceremony: the broker may never answer a farewell.
                with contextlib.suppress(Exception):
                    link.collect()
            raise OutletAway(f"{type(error).__name__}: {error}") from error

    def _connect(self) -> None:
        wire: Any = connection(self._servers[0], "mailgate events")
        # Another thread that closes what is not open yet would open it itself (py-amqp).
        try:
            wire.connect()
        except BaseException:
            wire.collect()
            raise
        self._link = wire
        wire.sock.settimeout(PATIENCE)
        read_ahead(wire)
        channel = wire.channel()
        try:
            channel.exchange_declare(EXCHANGE, "topic", passive=True)
        except amqp.NotFound:
            channel = wire.channel()
            channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        self._channel, self._tag = channel, 0
        self._waiting, self._nacked = set(), set()
        self._looked = time.monotonic()

    def _send(self, posts: Sequence[Post]) -> frozenset[str | None]:
        wire, first = self._link, self._tag + 1
        self._tag += len(posts)
        self._waiting, self._nacked = set(range(first, self._tag + 1)), set()
        wire.transport.write(frames(posts, self._channel.channel_id, wire.frame_max))
        wire.bytes_sent += len(posts)  # the heartbeat goes by it
        until = time.monotonic() + _CONFIRMED
        while self._waiting:
            try:
                wire.blocking_read(timeout=1.0)
            except TimeoutError:
                if time.monotonic() > until:
                    raise
                # A broker that takes its time beats meanwhile; one that is gone does not.
                wire.heartbeat_tick()
        self._looked = time.monotonic()
        return frozenset(posts[tag - first].producer for tag in self._nacked)

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._waiting.difference_update(self._meant(tag, multiple))

    def _on_nack(self, tag: int, multiple: bool) -> None:
        meant = self._meant(tag, multiple)
        self._nacked |= meant
        self._waiting -= meant

    def _meant(self, tag: int, multiple: bool) -> set[int]:
        return {one for one in self._waiting if one <= tag} if multiple else {tag}

    def _listen(self) -> None:
        wire = self._link
        with contextlib.suppress(TimeoutError):
            while True:
                wire.drain_events(timeout=0.001)
        wire.heartbeat_tick()
        self._looked = time.monotonic()


def _part(link: Any) -> None:
    with contextlib.suppress(Exception):
        link.close()
