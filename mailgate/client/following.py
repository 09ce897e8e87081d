"""Asking and waiting: commands with their answers, outcomes, and events for good.

Owns the loops over events: reconnecting, deadlines, what counts as an answer. An outcome is
never put together from events: they say when to ask, and the gateway's answer is the
outcome. So nothing that was missed or came twice can make it wrong.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mailgate.client import capture
from mailgate.client.errors import NoAnswer
from mailgate.client.events import Event, Listener, listeners
from mailgate.client.ways import Away, Shut, pauses

if TYPE_CHECKING:
    from mailgate.client.client import Client

#: Seconds after which a wait looks whether it is still wanted, and asks again in any case.
_TICK, _ASK_AGAIN = 0.5, 15.0
#: Who events are for when nobody says who publishes (``default_producer`` of the gateway).
DEFAULT_PRODUCER = "default"


@contextmanager
def _listening(client: Client, group: str | None, until: float) -> Iterator[Listener]:
    """A listener on whichever broker answers.

    Raises ``NoAnswer`` when none does in time, or one says that we may not listen.
    """
    if capture.current() is not None:
        raise NoAnswer("what is published is captured: no gateway will answer")
    producer = client.producer or DEFAULT_PRODUCER
    ways = listeners(client.url, producer, timeout=client.timeout, group=group)
    for pause in pauses(len(client.url.split(";"))):
        try:
            listener = next(ways)()
            break
        except Away as error:
            if time.monotonic() + pause > until:
                raise NoAnswer(f"no events can be read: {error}") from error
        except Shut as error:
            raise NoAnswer(f"no events can be read: {error}") from error
        time.sleep(pause)
    try:
        yield listener
    finally:
        listener.close()


def command(
    client: Client, verb: str, which: dict[str, Any], *, wait: float | None
) -> Event | None:
    """Publish a command; with ``wait`` (seconds) give its answer. Raises ``NoAnswer``."""
    if wait is None:
        client.publish(_command(verb, which)[0])
        return None
    until = time.monotonic() + wait
    try:
        with _listening(client, None, until) as listener:
            return _answer(client, listener, verb, which, until, lambda event: None)
    except Away as error:
        # Whether it was carried out is not known, so it is not published again.
        raise NoAnswer(f"the broker went away before the answer came: {error}") from error


def wait_for(
    client: Client, which: dict[str, Any], *, timeout: float, stopped: threading.Event
) -> Event:
    """The answer to an ``ask`` once nothing more happens to the message by itself."""
    until = time.monotonic() + timeout
    while True:
        try:
            with _listening(client, None, until) as listener:
                return _outcome(client, listener, which, until, stopped)
        except Away:
            continue  # whatever was missed meanwhile, the next answer knows


def _outcome(
    client: Client,
    listener: Listener,
    which: dict[str, Any],
    until: float,
    stopped: threading.Event,
) -> Event:
    while True:
        told: set[str] = set()
        note = _endings(told)
        answer = _answer(client, listener, "ask", which, until, note, stopped)
        said = answer["command"]
        if said.get("final"):
            return answer
        waiting = {one["id"] for one in said.get("recipients", ())}
        ask_again = min(until, time.monotonic() + _ASK_AGAIN)
        while not (waiting and waiting <= told) and time.monotonic() < ask_again:
            heard = listener.read(min(_TICK, max(0.0, ask_again - time.monotonic())))
            for event in heard:
                note(event)
            if not waiting and any(_about(event, which) for event in heard):
                break  # there was no such message, and now there is
            if stopped.is_set():
                raise NoAnswer("nobody waits for it any more", last=answer)
        if time.monotonic() >= until:
            raise NoAnswer("it is not over yet", last=answer)


def _endings(told: set[str]) -> Callable[[Event], None]:
    """Keeps the recipients that have come to an end, or left it again."""

    def note(event: Event) -> None:
        if (recipient := event.get("recipient")) is not None:
            (told.add if event.final else told.discard)(recipient["id"])

    return note


def _about(event: Event, which: dict[str, Any]) -> bool:
    target = which.get("idempotency_key") or which.get("id")
    message = event.message
    return target in (message.get("idempotency_key"), message.get("own_id"), message.get("id"))


def _answer(
    client: Client,
    listener: Listener,
    verb: str,
    which: dict[str, Any],
    until: float,
    note: Callable[[Event], None],
    stopped: threading.Event | None = None,
) -> Event:
    document, number = _command(verb, which)
    client.publish(document)
    last: Event | None = None
    while (left := until - time.monotonic()) > 0 and not (stopped and stopped.is_set()):
        for event in listener.read(min(_TICK, left)):
            note(event)
            said = event.get("command") or {}
            if said.get("id") == number:
                if said.get("result") != "early":
                    return event
                last = event  # another follows once the message has come
    raise NoAnswer(f"no answer to {verb}", last=last)


def _command(verb: str, which: dict[str, Any]) -> tuple[dict[str, Any], str]:
    number = os.urandom(16).hex()
    said = {name: value for name, value in which.items() if value is not None}
    return {"version": 1, "id": number, verb: said}, number


def events(
    client: Client, *, group: str, timeout: float | None, stopped: threading.Event
) -> Generator[Event, None, None]:
    """Each event until it was dealt with; ``timeout`` ends a silence of so many seconds."""
    quiet_since = time.monotonic()
    while True:
        silence = None if timeout is None else quiet_since + timeout
        # Whoever waits for ever waits for the broker as well.
        with _listening(client, group, silence or float("inf")) as listener:
            try:
                while not stopped.is_set():
                    left = _TICK if silence is None else silence - time.monotonic()
                    if left <= 0:
                        return
                    for event in listener.read(min(_TICK, left)):
                        yield event
                        listener.done(event)
                        quiet_since = time.monotonic()
                        silence = None if timeout is None else quiet_since + timeout
                return
            except Away:
                continue  # what was not acknowledged comes again
