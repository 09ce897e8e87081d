"""The filters that a template may use, and nothing besides.

Owns the allow-list. Every filter here has a cost bounded by its input: those
of Jinja that can make much out of little (``center``, ``replace``, ``format``,
``indent``, ``batch``) are left out on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from jinja2 import filters as _jinja

from mailgate.render.errors import RenderError

#: Where a link in a mail may lead. Anything else (``javascript:``, ``data:``,
#: a relative path) has no meaning or a bad one in a mail client.
URL_SCHEMES = ("https:", "http:", "mailto:", "tel:", "cid:")

#: Characters of RFC 3986 that pass through; all others are percent-encoded.
_SAFE = "!#$&'()*+,-./:;=?@_~[]%"
_CLEAN_URL = re.compile(
    r"(?:https?://(?=[A-Za-z0-9\[])|mailto:(?=[^/])|tel:(?=[+0-9])|cid:(?=[^/]))"
    r"(?:[A-Za-z0-9!#$&'()*+,\-./:;=?@_~\[\]]|%[0-9A-Fa-f]{2})+\Z"
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


def number(value: Any, decimals: int = 0, group: str = ",", point: str = ".") -> str:
    """``1234567.5|number(2)`` is ``1,234,567.50``; the separators are the author's."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RenderError("data_invalid", "|number was given something else than a number")
    if not 0 <= int(decimals) <= 12:
        raise RenderError("template_broken", "|number takes 0 to 12 decimals")
    text = f"{value:,.{int(decimals)}f}"
    return text.translate({ord(","): str(group), ord("."): str(point)})


def lines(value: Any) -> list[str]:
    """The lines of a text, without their ends."""
    return str(value).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def paragraphs(value: Any) -> list[str]:
    """The paragraphs of a text: what stands between blank lines, each stripped."""
    text = "\n".join(lines(value))
    return [part.strip() for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


FILTERS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "capitalize": _jinja.do_capitalize,
    "count": len,
    "d": _jinja.do_default,
    "default": _jinja.do_default,
    "first": _jinja.do_first,
    "float": _jinja.do_float,
    "int": _jinja.do_int,
    "join": _jinja.do_join,
    "last": _jinja.do_last,
    "length": len,
    "lines": lines,
    "lower": _jinja.do_lower,
    "map": _jinja.do_map,
    "number": number,
    "paragraphs": paragraphs,
    "rejectattr": _jinja.do_rejectattr,
    "reverse": _jinja.do_reverse,
    "selectattr": _jinja.do_selectattr,
    "sort": _jinja.do_sort,
    "title": _jinja.do_title,
    "trim": _jinja.do_trim,
    "truncate": _jinja.do_truncate,
    "unique": _jinja.do_unique,
    "upper": _jinja.do_upper,
    "url": url,
    "urlencode": urlencode,
}

#: Jinja's tests that look at a value and nothing else.
TESTS = (
    "boolean",
    "defined",
    "divisibleby",
    "eq",
    "==",
    "even",
    "false",
    "ge",
    ">=",
    "gt",
    ">",
    "in",
    "iterable",
    "le",
    "<=",
    "lower",
    "lt",
    "<",
    "mapping",
    "ne",
    "!=",
    "none",
    "number",
    "odd",
    "sequence",
    "string",
    "true",
    "undefined",
    "upper",
)
