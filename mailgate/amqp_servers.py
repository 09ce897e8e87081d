"""From a URL to what py-amqp has to know, alike for doors, events, rings and producers.

Owns what each part of an ``amqp://`` or ``amqps://`` URL means. Never connects, and never says
how long to wait, nor what a connection is called: that is each caller's. Imports no py-amqp.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_PORT, _TLS_PORT = 5672, 5671
_VERIFY = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}

#: Some of the arguments of ``amqp.Connection``.
Server = dict[str, Any]
#: How gateways log in unless the URL says otherwise, as kombu does: py-amqp itself would take
#: whatever the server offers first, a client certificate before a password.
LOGIN: Server = {"login_method": "PLAIN"}


def servers(url: str) -> list[Server]:
    """Arguments of ``amqp.Connection`` for each URL separated by ``;``.

    Without a path, or with ``/``, the virtual host is ``/``. ``ssl_*`` are spelled as in Redis
    URLs; files said with one hold for all that name none. Certificates are verified, each by its
    own host's name, unless its own ``ssl_cert_reqs=none`` says otherwise. ``login_method``
    (``EXTERNAL``, say) is there when it was said.
    """
    parts = [urlsplit(one) for one in url.split(";")]
    shared = {key: value for part in parts for key, value in parse_qsl(part.query)}
    # That one host cannot be verified says nothing of another.
    shared.pop("ssl_cert_reqs", None)
    return [_server(part, {**shared, **dict(parse_qsl(part.query))}) for part in parts]


def _server(part: SplitResult, said: dict[str, str]) -> Server:
    host = unquote(part.hostname or "localhost")
    server: Server = {
        "host": f"{_bracketed(host)}:{part.port or _port(part)}",
        "userid": unquote(part.username or "guest"),
        "password": unquote(part.password or "guest"),
        "virtual_host": unquote(part.path[1:]) or "/",
        "ssl": tls(said, host) if part.scheme == "amqps" else False,
    }
    if "login_method" in said:
        server["login_method"] = said["login_method"]
    return server


def _bracketed(host: str) -> str:
    """An address of IPv6 as it stands before a port (RFC 3986 section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def _port(part: SplitResult) -> int:
    return _TLS_PORT if part.scheme == "amqps" else _PORT


def tls(said: Mapping[str, str], host: str | None) -> dict[str, Any]:
    """py-amqp's options from a URL's query, for a server of this name."""
    found: dict[str, Any] = {
        key.removeprefix("ssl_"): value for key, value in said.items() if key.startswith("ssl_")
    }
    verify = found.pop("cert_reqs", "required").lower().removeprefix("cert_")
    found["cert_reqs"] = _VERIFY[verify]
    if verify != "none":
        found["server_hostname"] = host
    return found
