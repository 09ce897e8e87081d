"""What becomes of each value that a template prints.

Owns the state of one rendering on its thread, the tokens of skeletons, and the
cleaning and escaping of values. Never knows what a template is.
"""

from __future__ import annotations

import secrets
import threading
from typing import Any

from jinja2 import Undefined
from markupsafe import Markup, escape

from mailgate.render.budget import spend
from mailgate.render.errors import RenderError
from mailgate.render.links import Url

_ODD = {
    **dict.fromkeys((*range(32), 127, *range(0xD800, 0xE000), 0xFFFE, 0xFFFF), 0xFFFD),
    9: 9,
    10: 10,
    12: 32,
}


class State(threading.local):
    """What one rendering keeps; a rendering stays on its thread from end to end."""

    values: list[str] | None = None


state = State()

#: Random for each process, so that no message can hold a token (and if one
#: did, it would be kept aside like any other value and never looked at).
TOKEN_PREFIX = f"q{secrets.token_hex(8)}q"
_tokens: list[Markup] = []


def token(number: int) -> Markup:
    """What stands for the ``number``-th printed value in a skeleton."""
    while len(_tokens) <= number:
        _tokens.append(Markup(f"{TOKEN_PREFIX}{len(_tokens):05d}z"))  # noqa: S704 # hex and digits
    return _tokens[number]


def clean(text: str) -> str:
    """Text as it can stand in HTML and on the wire: line ends are LF, no other controls."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.translate(_ODD)


def printed(value: Any) -> str:
    """The text of a value that a template prints; what has none is refused, not guessed."""
    kind = type(value)
    if kind is str or kind is Url:
        return str(value)
    if kind is int or kind is float:
        return str(value)
    if isinstance(value, Undefined):
        str(value)  # StrictUndefined raises and names the variable
    what = {bool: "true or false", type(None): "null", list: "a list", dict: "an object"}
    raise RenderError("template_broken", f"a template prints {what.get(kind, kind.__name__)}")


def finalize_html(value: Any) -> str:
    """Jinja's last word on each value printed into HTML: escaped, or a token.

    While a skeleton is made, the value goes aside and a token takes its place.
    Values without a visible character stay in the skeleton: what they do to
    the parser's handling of blank text is then decided with them in place.
    """
    kind = type(value)
    if kind is Markup:
        return value  # type: ignore[no-any-return]
    if kind is not str and kind is not Url:
        value = printed(value)
    if not value.isprintable():
        value = clean(value)
    values = state.values
    if values is None:
        if len(value) > 255:
            spend(len(value) >> 8)
        return escape(value)
    if not value or value.isspace():
        return value  # type: ignore[no-any-return]
    count = len(values)
    values.append(value)
    return _tokens[count] if count < len(_tokens) else token(count)


def finalize_text(value: Any) -> str:
    """Jinja's last word on each value printed into a subject or a text part."""
    kind = type(value)
    if kind is not str and kind is not Url and kind is not Markup:
        value = printed(value)
    if len(value) > 255:
        spend(len(value) >> 8)
    return value if value.isprintable() else clean(value)
