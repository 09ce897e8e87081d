"""The SMTP side of the local inbox: takes every mail and sends none.

Owns the answers to an SMTP client. Never relays, never asks for a password.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import weakref
from collections.abc import Awaitable, Callable

import structlog
from aiosmtpd.smtp import SMTP, Envelope, Session

#: What SIZE announces (RFC 1870), in bytes.
MAX_SIZE = 64 * 2**20

_log = structlog.stdlib.get_logger(__name__)

#: (content, mail_from, rcpt_to, received_at in ms) -> number of the mail.
Keep = Callable[[bytes, str, list[str], int], Awaitable[int]]


class _Handler:
    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        content = envelope.original_content
        assert content is not None
        try:
            number = await self._keep(
                content,
                # aiosmtpd keeps the null sender as it was written.
                "" if envelope.mail_from in (None, "<>") else str(envelope.mail_from),
                [str(address) for address in envelope.rcpt_tos],
                time.time_ns() // 1_000_000,
            )
        except (OSError, sqlite3.Error) as error:
            _log.error("a mail could not be kept", reason=str(error))
            return "451 4.3.0 The inbox cannot keep it now"
        return f"250 2.0.0 Kept as {number}"


class Sink:
    """A listening SMTP server."""

    def __init__(self, keep: Keep) -> None:
        self._handler = _Handler(keep)
        self._sessions: weakref.WeakSet[SMTP] = weakref.WeakSet()

    async def start(self, host: str, port: int) -> int:
        """Take mail; returns the port. Raises ``OSError`` when it is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Take no more; clients in mid-conversation lose their connection and try again."""
        self._server.close()
        for session in list(self._sessions):
            if session.transport is not None:
                session.transport.close()

    def _session(self) -> SMTP:
        session = SMTP(
            self._handler,
            data_size_limit=MAX_SIZE,
            enable_SMTPUTF8=True,
            # Without a name aiosmtpd would ask DNS for ours at each connection.
            hostname="mailgate.inbox",
            ident="mailgate inbox",
            loop=asyncio.get_running_loop(),
        )
        self._sessions.add(session)
        return session
