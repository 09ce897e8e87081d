"""Links: what a mail may point to, and how it is written.

Owns the check of schemes and the form that mail clients agree on. Never looks
at a document; where links must go through here is said in ``check.py``.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from mailgate.render.errors import RenderError

#: Where a link in a mail may lead. Anything else (``javascript:``, ``data:``,
#: a relative path) has no meaning or a bad one in a mail client.
URL_SCHEMES = ("https:", "http:", "mailto:", "tel:", "cid:")

#: Characters of RFC 3986 that pass through; all others are percent-encoded.
_SAFE = "!#$&'()*+,-./:;=?@_~[]%"
_CLEAN_URL = re.compile(
    r"(?:https?://(?=[A-Za-z0-9\[])|mailto:(?=[^/])|tel:(?=[+0-9])|cid:(?=[^/]))"
    r"(?=.)[A-Za-z0-9!#$&'()*+,\-./:;=?@_~\[\]]*+"
    r"(?:%[0-9A-Fa-f]{2}[A-Za-z0-9!#$&'()*+,\-./:;=?@_~\[\]]*+)*+\Z"
)
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile(r"(https?://)([^/?#]*)(.*)\Z", re.IGNORECASE | re.DOTALL)


class Url(str):
    """Text that went through ``|url`` or ``|urlencode``: printable ASCII, no quotes."""

    __slots__ = ()


def url(value: Any) -> Url:
    """Check a link and bring it into the form that mail clients agree on.

    Raises ``RenderError`` (``data_invalid``) for another scheme than those of
    ``URL_SCHEMES``, for control characters and for a missing host.
    """
    if type(value) is Url and _CLEAN_URL.match(value):
        return value
    if not isinstance(value, str):
        raise RenderError("data_invalid", "a link is not text")
    text = value.strip(" ")
    if _CLEAN_URL.match(text):
        return Url(text)
    if not text.lower().startswith(URL_SCHEMES):
        raise RenderError("data_invalid", "a link must begin with https:, http:, mailto: or tel:")
    if any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise RenderError("data_invalid", "a link holds control characters")
    found = _AUTHORITY.match(text)
    if found:
        try:
            host = found[2] if found[2].isascii() else found[2].encode("idna").decode("ascii")
        except UnicodeError:
            raise RenderError("data_invalid", "a link's host is not a host name") from None
        text = found[1].lower() + host + found[3]
    else:
        scheme, colon, rest = text.partition(":")
        text = scheme.lower() + colon + rest
    text = quote(_LONE_PERCENT.sub("%25", text), safe=_SAFE)
    if not _CLEAN_URL.match(text):
        raise RenderError("data_invalid", "a link names nothing to go to")
    return Url(text)


def urlencode(value: Any) -> Url:
    """One part of a link (a path segment or a query value), fully percent-encoded."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RenderError("data_invalid", "a part of a link is neither text nor a number")
    return Url(quote(str(value), safe="", errors="replace"))
