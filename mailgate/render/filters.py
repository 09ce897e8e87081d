"""The filters that a template may use, and nothing besides.

Owns the allow-list. Every filter here has a cost bounded by its input: those
of Jinja that can make much out of little (``center``, ``replace``, ``format``,
``indent``, ``batch``) are left out on purpose. What a filter needs more than a
line for stands beside: ``links``, ``formats``, ``richtext``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2 import filters as _jinja

from mailgate.render.formats import date, datetime, filesize, money, number, time
from mailgate.render.links import URL_SCHEMES, Url, url, urlencode
from mailgate.render.richtext import richtext


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
    "date": date,
    "datetime": datetime,
    "default": _jinja.do_default,
    "filesize": filesize,
    "first": _jinja.do_first,
    "float": _jinja.do_float,
    "int": _jinja.do_int,
    "join": _jinja.do_join,
    "last": _jinja.do_last,
    "length": len,
    "lines": lines,
    "lower": _jinja.do_lower,
    "map": _jinja.do_map,
    "money": money,
    "number": number,
    "paragraphs": paragraphs,
    "rejectattr": _jinja.do_rejectattr,
    "reverse": _jinja.do_reverse,
    "richtext": richtext,
    "selectattr": _jinja.do_selectattr,
    "sort": _jinja.do_sort,
    "time": time,
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

__all__ = ["FILTERS", "TESTS", "URL_SCHEMES", "Url", "lines", "paragraphs", "url", "urlencode"]
