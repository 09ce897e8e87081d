"""The URLs of broker, journal and limiter: which are allowed, and how they are shown.

Owns their schemes, their one canonical spelling and the masking of what is secret
in them. Never connects anywhere.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

#: Kept in the journal instead of a Redis: the limiter's one word beside URLs.
JOURNAL_WORD = "journal"

_REDIS = ("redis", "rediss", "redis+socket", "unix", "sentinel")
_AMQP = ("amqp", "amqps")
_KINDS = {
    "redis": "redis",
    "rediss": "redis",
    "redis+socket": "socket",
    "unix": "socket",
    "sentinel": "sentinel",
    "amqp": "amqp",
    "amqps": "amqp",
}
_POSTGRESQL = ("postgresql+psycopg", "postgresql", "postgres")

_CREDENTIALS = re.compile(r"(?<=://)([^/@\s?#;]*:)?[^/@\s?#;]*@")
#: Celery also takes the names that Python gives these, in any case; redis-py does not.
_CERT_REQS = re.compile(r"(?i)([?&]ssl_cert_reqs=)(?:cert_)?(none|optional|required)\b")
_SECRET_QUERY = re.compile(r"(?i)([?&](?:\w*password\w*|\w*secret\w*|\w*token\w*)=)[^&;\s#]*")


class UrlError(ValueError):
    """The URL is not one that may stand here; says what is wrong and what is allowed."""


def is_redis(url: str) -> bool:
    """Whether a broker URL (canonical or not) leads to a Redis or Valkey."""
    return urlsplit(url.split(";")[0]).scheme in _REDIS


def is_sentinel(url: str) -> bool:
    """Whether a broker URL names Sentinels: several URLs are then one Redis."""
    return urlsplit(url.split(";")[0]).scheme == "sentinel"


def for_redis_py(url: str) -> str:
    """One URL in redis-py's spelling, which differs for sockets and ``ssl_cert_reqs``."""
    url = _CERT_REQS.sub(lambda found: found[1] + found[2].lower(), url)
    part = urlsplit(url)
    if part.scheme != "redis+socket":
        return url
    query = dict(parse_qsl(part.query))
    database = query.pop("virtual_host", None)
    if database is not None:
        query["db"] = database
    return f"unix://{part.netloc}{part.path}" + (f"?{urlencode(query)}" if query else "")


def sentinels(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """Where the Sentinels are, what they call the master, and how to connect to it."""
    parts = [urlsplit(for_redis_py(one)) for one in url.split(";")]
    first = parts[0]
    given = [pair for part in parts for pair in parse_qsl(part.query)]
    names = [value for key, value in given if key.startswith("master")]
    tls = {key: value for key, value in given if key.startswith("ssl_")}
    return (
        [(part.hostname or "localhost", part.port or 26379) for part in parts],
        names[0] if names else "mymaster",
        {
            "db": int(first.path.strip("/") or 0),
            "username": unquote(first.username) if first.username else None,
            "password": unquote(first.password) if first.password else None,
            # Of the way to the master; Sentinels are asked in clear.
            **({"ssl": True, **tls} if tls else {}),
        },
    )


def hosts(url: str) -> list[str]:
    """The host of each of the URLs in ``url``; none for sockets and files."""
    found = [urlsplit(one).hostname for one in url.split(";")]
    return [host for host in found if host]


def is_loopback(host: str) -> bool:
    """Whether what is said to ``host`` stays on this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") in ("localhost", "localhost.localdomain")


def mask(text: str) -> str:
    """``text`` with the password of every URL in it as ``***``, user names kept."""
    masked = _CREDENTIALS.sub(
        lambda found: f"{found[1]}***@" if found[1] else f"{found[0][:-1]}@", text
    )
    return _SECRET_QUERY.sub(r"\1***", masked)


def broker(text: str) -> str:
    """A broker or intake URL in canonical spelling, or several separated by ``;``.

    A socket is ``redis+socket:///path`` with its database as ``virtual_host``, which
    is how Celery's transport spells it. Raises ``UrlError``.
    """
    return _several(text, (*_REDIS, *_AMQP))


def limiter(text: str) -> str:
    """A limiter URL in canonical spelling, or ``journal``. Raises ``UrlError``."""
    if text == JOURNAL_WORD:
        return text
    return _several(text, _REDIS, f"'{JOURNAL_WORD}'")


def journal(text: str, base: Path) -> str:
    """A journal URL in canonical spelling: SQLite's file absolute, psycopg named.

    A relative SQLite path is taken from ``base``. Raises ``UrlError``.
    """
    part = _split(text, ("sqlite", *_POSTGRESQL))
    if part.scheme == "sqlite":
        if part.netloc:
            raise UrlError("must have three slashes for SQLite: sqlite:///path")
        path = part.path.removeprefix("/")
        if path in ("", ":memory:"):
            raise UrlError("must name a file: a journal in memory would lose mail")
        query = f"?{part.query}" if part.query else ""
        return f"sqlite:///{os.path.abspath(base / Path(path).expanduser())}{query}"
    if not part.hostname and "host" not in dict(parse_qsl(part.query)):
        raise UrlError("must name a host, or a socket directory as ?host=/path")
    if not part.path.strip("/"):
        raise UrlError("must name a database: postgresql+psycopg://host/database")
    return "postgresql+psycopg" + text[len(part.scheme) :]


def source(text: str, base: Path) -> str:
    """The URL of a place that schedules read: a service's, or as a journal's."""
    if not text.startswith(("http://", "https://")):
        return journal(text, base)
    part = _split(text, ("http", "https"))
    if not part.hostname:
        raise UrlError("must name a host: https://api.example.com/mail")
    if part.query or part.fragment:
        raise UrlError("must not have a query: a schedule's path may")
    if part.username or part.password:
        raise UrlError("must not hold a password: token_file says where a token is")
    return text.rstrip("/")


def _several(text: str, schemes: tuple[str, ...], also: str = "") -> str:
    said = [part.strip() for part in text.split(";")]
    if not all(said):
        raise UrlError("has an empty URL beside a ';'")
    parts = [_split(one, schemes, also) for one in said]
    if len({_KINDS[part.scheme] for part in parts}) > 1:
        raise UrlError("mixes kinds: several URLs for failover must all be of one kind")
    return ";".join(_canonical(part, one) for part, one in zip(parts, said, strict=True))


def _split(text: str, schemes: tuple[str, ...], also: str = "") -> SplitResult:
    wanted = ", ".join(f"{s}://" for s in schemes if s not in ("postgresql", "postgres"))
    wanted += f" or {also}" if also else ""
    if any(ord(c) <= 32 or ord(c) == 127 for c in text):
        raise UrlError("must not hold spaces or control characters: percent-encode them")
    scheme, colon, _ = text.partition("://")
    if not colon:
        raise UrlError(f"is not a URL; it must begin with one of {wanted}")
    if scheme not in schemes:
        raise UrlError(f"begins with '{mask(scheme)}://'; it must begin with one of {wanted}")
    try:
        part = urlsplit(text)
        _ = part.port
    except ValueError:
        raise UrlError(
            "has no host and port that can be read (a port is from 0 to 65535; '/', '#', '?', "
            "':' and '@' in a password must be percent-encoded)"
        ) from None
    if part.fragment or "#" in text:
        raise UrlError("must not hold '#': in a password write %23")
    return part


def _canonical(part: SplitResult, text: str) -> str:
    if part.scheme in ("unix", "redis+socket"):
        if part.netloc.rpartition("@")[2] or not part.path.strip("/"):
            raise UrlError("must have three slashes and an absolute path: redis+socket:///path")
        query = dict(parse_qsl(part.query))
        database = query.pop("db", None) or query.pop("virtual_host", None)
        if database is not None:
            _database(database)
            query["virtual_host"] = database
        rest = f"?{urlencode(query)}" if query else ""
        return f"redis+socket://{part.netloc}{part.path}{rest}"
    if not part.hostname:
        raise UrlError(f"must name a host: {part.scheme}://host")
    if part.scheme not in _AMQP and part.path.strip("/"):
        _database(part.path.strip("/"))
    return text


def _database(text: str) -> None:
    if not text.isdecimal():
        raise UrlError("must end in the number of a database, such as /0")
