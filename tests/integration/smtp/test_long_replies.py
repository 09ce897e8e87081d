"""A reply as long as may be, and the relay's end right behind it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
import trustme

from mailgate.smtp.reply import MAX_LINES
from mailgate.smtp.wire import Wire

WORDS = "x" * 240
REPLY = b"".join(
    f"550{'-' if n < MAX_LINES - 1 else ' '}{n:03d} {WORDS}\r\n".encode() for n in range(MAX_LINES)
)


class Parting:
    """Says all of its last reply at the first command, and is gone without TLS's goodbye."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        talk, _ = self._listener.accept()
        if self._context is not None:
            talk = self._context.wrap_socket(talk, server_side=True, suppress_ragged_eofs=False)
        with talk:
            talk.settimeout(10)
            talk.sendall(b"220 ready\r\n")
            talk.recv(100)
            talk.sendall(REPLY)

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["clear", "tls"])
def relay(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Parting]:
    context = None
    if request.param == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
    parting = Parting(context)
    yield parting
    parting.close()


async def test_all_of_it_is_read_though_the_relay_has_gone(
    relay: Parting, authority: trustme.CA
) -> None:
    loop = asyncio.get_running_loop()
    secure = relay._context is not None
    _, wire = await loop.create_connection(
        lambda: Wire(loop, silent=secure), "127.0.0.1", relay.port
    )
    if secure:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        await wire.encrypt(context, "localhost", 5)
    assert (await wire.greeting(5)).code == 220
    due = wire.ask(b"MAIL FROM:<>\r\n", 1)
    # The relay is done before anyone looks.
    time.sleep(0.3)
    while not due.replies and wire.broken is None:
        await asyncio.sleep(0.01)
    (reply,) = due.replies
    assert reply.code == 550
    assert reply.text.count(WORDS) == MAX_LINES
    wire.abort()
