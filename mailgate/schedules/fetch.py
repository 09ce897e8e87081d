"""Asking a service for JSON, with nothing that could lead elsewhere.

Owns the one request: to the configured host alone, at an address that was looked at, over
a verified connection, in bounded time and size. A redirect is a fault and is not followed:
whoever answers must not choose whom we ask. Never proxied.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from mailgate.config.schedules import Source

_CHUNK = 65_536


class FetchError(Exception):
    """There is no answer that can be used; says why."""


def fetch(source: Source, path: str, since: int, until: int) -> Any:
    """The JSON document below ``path``; ``since`` and ``until`` (ms) go along as RFC 3339.

    Raises ``FetchError``, ``OSError``, and ``ValueError`` for what is no JSON.
    """
    ends = time.monotonic() + source.timeout
    base = urlsplit(source.url)
    host = base.hostname or ""
    port = base.port or (443 if base.scheme == "https" else 80)
    address = _address(host, port, source.private)
    connection = _Pinned(host, port, address, base.scheme == "https", ends)
    headers = {"Accept": "application/json", "User-Agent": "mailgate"}
    if source.token_file is not None:
        token = source.token_file.read_text(encoding="utf-8").strip()
        if not token.isascii() or not token.isprintable() or " " in token:
            raise FetchError("its token_file holds no token")
        headers["Authorization"] = f"Bearer {token}"
    # Whatever drips: then the connection ends, and with it what waits for it.
    watch = threading.Timer(source.timeout, connection.abort)
    watch.start()
    try:
        connection.request("GET", _target(base.path, path, since, until), headers=headers)
        answer = connection.getresponse()
        connection.answer = answer
        if 300 <= answer.status < 400:
            raise FetchError(f"answers {answer.status}: redirects are not followed")
        if answer.status != 200:
            raise FetchError(f"answers {answer.status} {answer.reason}"[:200])
        kind = answer.headers.get_content_type()
        if kind != "application/json" and not kind.endswith("+json"):
            raise FetchError(f"answers with {kind}, and not with application/json")
        return json.loads(_body(answer, source.max_bytes))
    except (http.client.HTTPException, OSError, FetchError) as error:
        if time.monotonic() >= ends or isinstance(error, TimeoutError):
            raise FetchError(f"gives no answer within {source.timeout:g} s") from None
        if isinstance(error, FetchError):
            raise
        raise FetchError(f"{type(error).__name__}: {error}"[:200]) from error
    finally:
        watch.cancel()
        if connection.answer is not None:
            connection.answer.close()
        connection.close()


def _target(base: str, path: str, since: int, until: int) -> str:
    window = urlencode({name: _moment(ms) for name, ms in (("since", since), ("until", until))})
    whole = base + "/" * (bool(path) and not path.startswith(("/", "?"))) + path
    if any(c <= " " or c == "\x7f" for c in whole) or not whole.isascii():
        raise FetchError("its path holds a space or a character that must be percent-encoded")
    return (whole or "/") + ("&" if "?" in whole else "?") + window


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _address(host: str, port: int, private: bool) -> str:
    """The address of a host, looked at once: what is asked is what was looked at."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FetchError(f"the host {host} is not found: {error.strerror}") from error
    for *_, where in found:
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            # Among them where clouds tell a machine its secrets.
            raise FetchError(f"the host {host} leads to {address}, which is never asked")
        if not address.is_global and not private:
            raise FetchError(
                f"the host {host} leads to {address}, which is not public: private = true allows it"
            )
    return str(found[0][4][0])


class _Pinned(http.client.HTTPConnection):
    """A connection to the address that was looked at, under the host's own name."""

    def __init__(self, host: str, port: int, address: str, tls: bool, ends: float) -> None:
        super().__init__(host, port)
        self._where = (address, port)
        self._tls = tls
        self._ends = ends
        self._open: socket.socket | None = None
        self.answer: http.client.HTTPResponse | None = None
        if tls:
            self.default_port = 443

    def connect(self) -> None:
        self.sock = socket.create_connection(self._where, max(0.1, self._ends - time.monotonic()))
        if self._tls:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
        self._open = self.sock

    def abort(self) -> None:
        """End it, from another thread; whoever reads sees its end."""
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open.shutdown(socket.SHUT_RDWR)


def _body(answer: http.client.HTTPResponse, most: int) -> bytes:
    found = answer.read(most + 1)
    if len(found) > most:
        raise FetchError(f"answers with more than {most} bytes")
    if answer.length:
        raise FetchError("breaks off in the middle of its answer")
    return found
