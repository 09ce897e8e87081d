"""One client: from a message to the broker's word that it has it.

Owns the order of things (document, key, check, try again until the deadline) for blocking
programs and coroutines alike. Never guesses: what no broker confirmed is an exception with
everything in it that another try needs.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from mailgate.client import capture
from mailgate.client.commands import Commands
from mailgate.client.errors import InvalidMessage, NoQueue, NotPublished, Refused
from mailgate.client.message import Message, plain
from mailgate.client.ways import Away, Missing, Shut, Way, pauses

if TYPE_CHECKING:
    from types import TracebackType

    from mailgate.contract import RefusedRecipient

#: What a gateway takes unless its operators say otherwise (``intake.max_bytes``).
MAX_BYTES = 16 * 2**20
#: What makes a document a command (``contract.commands``, which costs too much to import).
_VERBS = frozenset({"cancel", "reschedule", "ask"})


class Receipt(NamedTuple):
    """The broker has the message.

    ``idempotency_key`` is what makes a repeat a repeat and by what events know it; ``where``
    is for logs. ``refused`` are entries of ``recipients`` that break a rule: the others are
    sent, and these will be parked.
    """

    idempotency_key: str
    where: str
    refused: tuple[RefusedRecipient, ...] = ()


class _Prepared(NamedTuple):
    body: bytes
    key: str
    refused: tuple[RefusedRecipient, ...] = ()


class Client(Commands):
    """Publishes on the broker at ``url`` (several, separated by ``;``, stand in for each other).

    ``amqp://``, ``amqps://`` with a virtual host; ``redis://``, ``rediss://``, ``unix://``,
    ``sentinel://host/0?master_name=…``. Nothing is connected before the first message.
    Threads may share it, and processes that are forked from one that has it.

    ``producer`` is put into every message that names none. ``timeout`` (seconds) bounds
    each step of a try, ``deadline`` (seconds) says for how long to try at all. ``validate``
    checks each message before it is published. ``mandatory`` makes a missing queue an
    error. ``replicas``: on Redis, how many replicas must have the message as well.
    """

    def __init__(
        self,
        url: str,
        *,
        producer: str | None = None,
        queue: str = "mailgate.inbox",
        timeout: float = 5.0,
        deadline: float = 10.0,
        validate: bool = True,
        mandatory: bool = True,
        replicas: int = 0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        from mailgate.config.urls import broker

        self.url = broker(url)
        self.producer = producer
        self.queue = queue
        self.timeout = timeout
        self._deadline = deadline
        self._validate = validate
        self._mandatory = mandatory
        self._replicas = replicas
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._ways: list[Way] = []
        _clients.add(self)

    def publish(
        self, message: Message | Mapping[str, Any], *, deadline: float | None = None
    ) -> Receipt:
        """Publish and wait until the broker has it.

        A message without ``idempotency_key`` and ``id`` gets a key of its own, which stays
        the same however often this call has to try. ``deadline`` (seconds) is this call's
        own. Raises ``InvalidMessage`` or ``NotPublished``.
        """
        return self._put(self._prepare(_document(message)), deadline)

    async def apublish(
        self, message: Message | Mapping[str, Any], *, deadline: float | None = None
    ) -> Receipt:
        """``publish`` for coroutines."""
        return await self._aput(self._prepare(_document(message)), deadline)

    def publish_raw(
        self, body: bytes, *, idempotency_key: str | None = None, deadline: float | None = None
    ) -> Receipt:
        """Publish a document that was made before, byte for byte (``NotPublished.body``)."""
        return self._put(_Prepared(body, idempotency_key or _key_in(body)), deadline)

    def prepare(self, message: Message | Mapping[str, Any]) -> tuple[bytes, str]:
        """The document that ``publish`` would publish, checked, and its key."""
        made = self._prepare(_document(message))
        return made.body, made.key

    def close(self) -> None:
        """Close the connections that are not in use; the next message opens new ones."""
        with self._lock:
            ways, self._ways = self._ways, []
        for way in ways:
            way.close()

    async def aclose(self) -> None:
        """``close``, and the connections of this event loop."""
        with self._lock:
            ways, self._ways = self._ways, []
        for way in ways:
            await way.aclose()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _prepare(self, document: dict[str, Any]) -> _Prepared:
        if self.producer is not None and document.get("producer") is None:
            document["producer"] = self.producer
        key = document.get("idempotency_key") or document.get("id")
        if key is None:
            # A command has an id of its own instead.
            name = "idempotency_key" if _VERBS.isdisjoint(document) else "id"
            key = document[name] = os.urandom(16).hex()
        body = _json(document)
        if not self._validate and capture.current() is None:
            return _Prepared(body, str(key))
        return _Prepared(body, str(key), _checked(body, self._max_bytes))

    def _put(self, made: _Prepared, deadline: float | None = None) -> Receipt:
        if (box := capture.current()) is not None:
            return _captured(box, made)
        until = time.monotonic() + (self._deadline if deadline is None else deadline)
        for pause in pauses(len(self._open())):
            way = self._open()[0]
            try:
                return Receipt(made.key, way.put(made.body, made.key), made.refused)
            except (Away, Shut) as error:
                self._failed(way, error, made, over=time.monotonic() + pause > until)
            time.sleep(pause)
        raise AssertionError  # pauses never end

    async def _aput(self, made: _Prepared, deadline: float | None = None) -> Receipt:
        import asyncio

        if (box := capture.current()) is not None:
            return _captured(box, made)
        until = time.monotonic() + (self._deadline if deadline is None else deadline)
        for pause in pauses(len(self._open())):
            way = self._open()[0]
            try:
                return Receipt(made.key, await way.aput(made.body, made.key), made.refused)
            except (Away, Shut) as error:
                self._failed(way, error, made, over=time.monotonic() + pause > until)
            await asyncio.sleep(pause)
        raise AssertionError  # pauses never end

    def _open(self) -> list[Way]:
        """The ways, the one to try next first."""
        with self._lock:
            if not self._ways:
                self._ways = self._made()
            return self._ways

    def _made(self) -> list[Way]:
        from mailgate.config.urls import is_redis, is_sentinel

        timeout, mandatory = self.timeout, self._mandatory
        if not is_redis(self.url):
            from mailgate.amqp_servers import servers
            from mailgate.client.amqp_way import AmqpWay

            return [
                AmqpWay(server, self.queue, timeout=timeout, mandatory=mandatory)
                for server in servers(self.url)
            ]
        from mailgate.client.redis_way import RedisWay

        urls = [self.url] if is_sentinel(self.url) else self.url.split(";")
        stream = self.queue.replace(".", ":")
        return [
            RedisWay(one, stream, timeout=timeout, mandatory=mandatory, replicas=self._replicas)
            for one in urls
        ]

    def _failed(self, way: Way, error: Away | Shut, made: _Prepared, *, over: bool) -> None:
        """Turn to the next way, or raise when it is no use or the time is over."""
        kind: type[NotPublished] | None = None
        if isinstance(error, Shut):
            kind = Refused
        elif over:
            kind = NoQueue if isinstance(error, Missing) else NotPublished
        if kind is not None:
            from mailgate.config.urls import mask

            reason = f"{mask(self.url)}: {error}"
            if kind is NoQueue:
                reason += "; has mailgate been started on this broker?"
            raise kind(reason, body=made.body, idempotency_key=made.key) from error
        with self._lock:
            if self._ways and self._ways[0] is way:
                self._ways = [*self._ways[1:], way]


def _document(message: Message | Mapping[str, Any]) -> dict[str, Any]:
    return message.document() if isinstance(message, Message) else dict(message)


def _json(document: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(document, default=plain, ensure_ascii=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        from mailgate.contract import Fault

        raise InvalidMessage((Fault("", f"is no JSON: {error}"),)) from error


def _checked(body: bytes, max_bytes: int) -> tuple[RefusedRecipient, ...]:
    """Read the document as the gateway will. Raises ``InvalidMessage``."""
    from mailgate.contract import Command, Refusal, read

    found = read(body, max_bytes=max_bytes)
    if isinstance(found, Refusal):
        raise InvalidMessage(found.faults)
    return () if isinstance(found, Command) else found.refused


def _captured(box: capture.Outbox, made: _Prepared) -> Receipt:
    box.append(capture.Published(json.loads(made.body), made.key))
    return Receipt(made.key, "captured", made.refused)


def _key_in(body: bytes) -> str:
    document = json.loads(body)
    return str(document.get("idempotency_key") or document.get("id") or os.urandom(16).hex())


#: A lock that another thread holds while we are forked would stay locked for ever.
_clients: WeakSet[Client] = WeakSet()


def _forked() -> None:
    for client in list(_clients):
        client._lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)
