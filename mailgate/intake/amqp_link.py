"""A connection to RabbitMQ: its heartbeats, and frames that py-amqp stumbles over.

Owns what lies below the door: nothing here knows a queue.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any

import amqp
from amqp.method_framing import frame_handler

from mailgate.amqp_servers import LOGIN, Server

#: Seconds; who is silent for two of these is gone, for us as for the broker.
HEARTBEAT = 15
CONNECT_TIMEOUT = 5.0
#: Seconds for a reply of the broker, and for its socket to take what we write. Below the
#: broker's heartbeats (half of ``HEARTBEAT``), which would else end each wait for a reply.
PATIENCE = 7.0
#: Bytes asked for at once. What is left of them is copied with each part of a frame.
_AHEAD = 8192


def connection(server: Server, name: str = "mailgate intake") -> amqp.Connection:
    """A connection to one of ``amqp_servers.servers``, not opened yet.

    ``name`` is what RabbitMQ's pages call it.
    """
    return amqp.Connection(
        **LOGIN | server,
        heartbeat=HEARTBEAT,
        connect_timeout=CONNECT_TIMEOUT,
        frame_handler=_lenient,
        client_properties={"connection_name": name},
    )


def read_ahead(wire: Any) -> None:
    """Have an open connection read what is there, and not a frame in three parts.

    py-amqp asks its socket for the head, the body and the end of each frame by themselves:
    nine reads a message, each with a poll before it, where one is enough for several.
    """
    receive = wire.transport._quick_recv
    wire.transport._quick_recv = lambda wanted: receive(max(wanted, _AHEAD))


def held(wire: Any) -> bool:
    """Whether something was read of which no frame has been made, or TLS has decrypted it."""
    transport = wire.transport
    if transport._read_buffer:
        return True
    sock = transport.sock
    return bool(isinstance(sock, ssl.SSLSocket) and sock.pending())


def _lenient(connection: Any, callback: Any) -> Callable[[Any], Any]:
    """py-amqp's frame handler, surviving properties that it cannot decode.

    A timestamp in milliseconds or a header that is no UTF-8 raises there, the
    connection is lost, and the same message comes again for ever. All but the
    message id is dropped then.
    """
    handle = frame_handler(connection, callback)

    def on_frame(frame: tuple[int, int, Any]) -> Any:
        kind, channel, buf = frame
        if kind != _CONTENT_HEADER:
            return handle(frame)
        try:
            return handle(frame)
        except Exception:  # noqa: BLE001 (of whichever kind: what follows parses less)
            return handle((kind, channel, _only_message_id(bytes(buf))))

    return on_frame


_CONTENT_HEADER = 2
#: AMQP 0-9-1 section 4.2.6.1: what precedes the message id, by flag bit. Short strings
#: and the header table say their length; the others are an octet.
_BEFORE = (
    (15, "short"),
    (14, "short"),
    (13, "table"),
    (12, "octet"),
    (11, "octet"),
    (10, "short"),
    (9, "short"),
    (8, "short"),
)
_MESSAGE_ID = 7


def _only_message_id(header: bytes) -> bytes:
    """A content header with the message id as its only property, if it had a sound one."""
    head, flags, at = header[:12], int.from_bytes(header[12:14], "big"), 14
    for bit, kind in _BEFORE:
        if flags >> bit & 1:
            if kind == "table":
                at += 4 + int.from_bytes(header[at : at + 4], "big")
            else:
                at += 1 + (header[at] if kind == "short" else 0)
    if flags >> _MESSAGE_ID & 1:
        text = header[at + 1 : at + 1 + header[at]]
        with contextlib.suppress(UnicodeDecodeError):
            text.decode()
            return head + (1 << _MESSAGE_ID).to_bytes(2, "big") + bytes([len(text)]) + text
    return head + b"\0\0"
