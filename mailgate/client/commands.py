"""What a producer may still say about its mail, and hear of it: part of ``Client``.

Owns the public methods and their twins for coroutines. How they wait is ``following``'s.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from datetime import datetime

    from mailgate.client.client import Client, Receipt
    from mailgate.client.events import Event

T = TypeVar("T")


class Commands:
    """Each names a message by the ``id`` that you gave it (or mailgate's own), by its key, or
    by the receipt of its publishing.

    With ``wait`` (seconds) the answer comes back, an event ``state`` whose ``command`` says
    what came of it; without, the command is only published. Raises ``NoAnswer`` when
    none comes in time, beside what ``publish`` raises.

    Answers come as events of the client's ``producer``. The twins for coroutines wait in
    a thread each.
    """

    producer: str | None
    url: str

    def cancel(
        self,
        id: str | Receipt | None = None,
        *,
        idempotency_key: str | None = None,
        recipient: str | None = None,
        reason: str | None = None,
        wait: float | None = None,
    ) -> Event | None:
        """What of the message still waits is never sent: all of it, or one recipient's."""
        more = {"recipient": recipient, "reason": reason}
        return self._command("cancel", _which(id, idempotency_key) | more, wait)

    async def acancel(
        self,
        id: str | Receipt | None = None,
        *,
        idempotency_key: str | None = None,
        recipient: str | None = None,
        reason: str | None = None,
        wait: float | None = None,
    ) -> Event | None:
        """``cancel`` for coroutines."""
        more = {"recipient": recipient, "reason": reason}
        which = _which(id, idempotency_key) | more
        return await _in_thread(lambda stopped: self._command("cancel", which, wait))

    def reschedule(
        self,
        id: str | Receipt | None = None,
        *,
        idempotency_key: str | None = None,
        send_at: datetime | str,
        expires_at: datetime | str | None = None,
        wait: float | None = None,
    ) -> Event | None:
        """The message goes at another time, if none of it was tried yet."""
        more = {"send_at": send_at, "expires_at": expires_at}
        return self._command("reschedule", _which(id, idempotency_key) | more, wait)

    async def areschedule(
        self,
        id: str | Receipt | None = None,
        *,
        idempotency_key: str | None = None,
        send_at: datetime | str,
        expires_at: datetime | str | None = None,
        wait: float | None = None,
    ) -> Event | None:
        """``reschedule`` for coroutines."""
        which = _which(id, idempotency_key) | {"send_at": send_at, "expires_at": expires_at}
        return await _in_thread(lambda stopped: self._command("reschedule", which, wait))

    def ask(
        self,
        id: str | Receipt | None = None,
        *,
        idempotency_key: str | None = None,
        wait: float = 10.0,
    ) -> Event:
        """How the message and its recipients stand."""
        return cast("Event", self._command("ask", _which(id, idempotency_key), wait))

    async def aask(
        self,
        id: str | Receipt | None = None,
        *,
        idempotency_key: str | None = None,
        wait: float = 10.0,
    ) -> Event:
        """``ask`` for coroutines."""
        which = _which(id, idempotency_key)
        found = await _in_thread(lambda stopped: self._command("ask", which, wait))
        return cast("Event", found)

    def wait_for(
        self,
        id: str | Receipt | None = None,
        *,
        idempotency_key: str | None = None,
        timeout: float = 30.0,
    ) -> Event:
        """How the message stands once nothing more happens to it by itself.

        The outcome is an answer as ``ask`` gives it: every recipient is sent, bounced or
        whatever else ends it. After ``timeout`` seconds ``NoAnswer`` is raised, with the
        latest answer in ``last``.
        """
        from mailgate.client.following import wait_for

        which = _which(id, idempotency_key)
        return wait_for(self._client(), which, timeout=timeout, stopped=threading.Event())

    async def await_for(
        self,
        id: str | Receipt | None = None,
        *,
        idempotency_key: str | None = None,
        timeout: float = 30.0,
    ) -> Event:
        """``wait_for`` for coroutines."""
        from mailgate.client.following import wait_for

        which, client = _which(id, idempotency_key), self._client()
        return await _in_thread(
            lambda stopped: wait_for(client, which, timeout=timeout, stopped=stopped)
        )

    def events(self, *, group: str | None = None, timeout: float | None = None) -> Iterator[Event]:
        """Every event of the producer, for good: an event is over when the next is asked for.

        Programs with one ``group`` share the events between them; by default it is
        ``<producer>.events``, which on RabbitMQ is the name of a durable queue. What was in
        hand when the program ended, or left the loop, comes again: know repeats by ``id``.
        A broker that is away is waited for. ``timeout`` (seconds) ends a silence; None waits
        for ever.
        """
        from mailgate.client.following import events

        return events(
            self._client(), group=self._group(group), timeout=timeout, stopped=threading.Event()
        )

    async def aevents(
        self, *, group: str | None = None, timeout: float | None = None
    ) -> AsyncIterator[Event]:
        """``events`` for coroutines."""
        from mailgate.client.following import events

        stopped = threading.Event()
        found = events(self._client(), group=self._group(group), timeout=timeout, stopped=stopped)
        # A thread that was left behind is in the generator until it sees ``stopped``.
        one = threading.Lock()

        def following(_: threading.Event) -> Event | None:
            with one:
                return next(found, None)

        def close(_: threading.Event) -> None:
            with one:
                found.close()

        try:
            while (event := await _in_thread(following, stopped)) is not None:
                yield event
        finally:
            stopped.set()
            await _in_thread(close)

    def _command(self, verb: str, which: Mapping[str, Any], wait: float | None) -> Event | None:
        from mailgate.client.following import command

        return command(self._client(), verb, dict(which), wait=wait)

    def _group(self, group: str | None) -> str:
        from mailgate.client.following import DEFAULT_PRODUCER

        return group or f"{self.producer or DEFAULT_PRODUCER}.events"

    def _client(self) -> Client:
        return cast("Client", self)


def _which(id: str | Receipt | None, key: str | None) -> dict[str, Any]:
    if isinstance(id, str):
        return {"id": id, "idempotency_key": key}
    if id is not None:
        return {"idempotency_key": id.idempotency_key}
    return {"idempotency_key": key}


async def _in_thread(
    act: Callable[[threading.Event], T], stopped: threading.Event | None = None
) -> T:
    """Run it in a thread; when we are cancelled it is told to end, and it ends soon."""
    import asyncio

    stopped = stopped or threading.Event()
    try:
        return await asyncio.to_thread(act, stopped)
    except asyncio.CancelledError:
        stopped.set()
        raise
