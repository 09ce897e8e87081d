"""Bytes as one JSON document, strictly: what two readers could read differently is a fault.

Owns the caps before and while parsing. RFC 8259 leaves open what duplicate
names, huge numbers and lone surrogates mean (sections 4, 6, 8.2): here each is
refused with its place. Never raises for any input.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from mailgate.contract.faults import MOST_FAULTS, Fault, Place, path
from mailgate.model import plain

#: Deeper data has no use in a template, and recursion has a price.
MAX_DEPTH = 32
#: Digits of one number; beyond some thousands, conversion is quadratic (CVE-2020-10735).
MAX_DIGITS = 128
#: Names in one object; only a hostile or a broken program writes more.
MAX_NAMES = 10_000
#: Values in one document: each takes some fifty bytes in memory, and two on the wire.
MAX_VALUES = 250_000

#: A key that could be read: one line of characters that every store can hold.
KEY = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,256}")
#: A text with its quotes, closed or not.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
#: Escapes that can make what strict UTF-8 cannot hold: NUL and halves of surrogate pairs.
_ODD_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
#: Digits that, with a sign, may be too many, when each is written as 0.
_TOO_LONG = b"0" * MAX_DIGITS
_ZEROS = bytes.maketrans(b"123456789", b"000000000")


class _Flaw:
    """Stands in the parsed document where a value is wrong."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        _noticed.flaws = True


class _Twice(dict[str, Any]):
    """An object in which ``names`` were given more than once."""

    names: frozenset[str] = frozenset()


class _TooMany(ValueError):
    """An object has too many names."""


class _Noticed(threading.local):
    """Whether the parse that runs in this thread has met a flaw."""

    flaws = False


_noticed = _Noticed()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) == len(pairs) <= MAX_NAMES:
        return out
    if len(pairs) > MAX_NAMES:
        raise _TooMany
    flawed = _Twice(out)
    counted = Counter(name for name, _ in pairs)
    flawed.names = frozenset(name for name, times in counted.items() if times > 1)
    _noticed.flaws = True
    return flawed


def _float(text: str) -> Any:
    value = float(text)
    return value if math.isfinite(value) else _Flaw("is a number too large to hold")


def _int(text: str) -> Any:
    return int(text) if len(text) <= MAX_DIGITS else _Flaw("is a number with too many digits")


def _constant(text: str) -> Any:
    return _Flaw(f"is {text.lstrip('-')}, which JSON does not have")


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant
)


def at_once(body: bytes) -> tuple[Any, bytes] | None:
    """A document without a fault, and its canonical bytes; None: ``parse`` has the word.

    What nearly every document is, both of them in six tenths of the time. The reader behind
    it refuses halves of surrogate pairs, but keeps NUL, the last of equal names and a number
    of any size: those are looked for in the bytes.
    """
    if len(body) > MAX_VALUES or (len(body) > MAX_NAMES and body.count(b":") > MAX_NAMES):
        return None
    if _TOO_LONG in body.translate(_ZEROS) or b"\\u0000" in body:
        return None
    try:
        document = plain.read(body)
        written = plain.canonical(document)
    except (ValueError, RecursionError):
        return None
    # Each text has two quotes; of a name that was given twice only two are left.
    if _quotes(body) != _quotes(written):
        return None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth_exceeds(document, MAX_DEPTH):
        return None
    return document, written


def _quotes(body: bytes) -> int:
    """How many quotes stand around texts."""
    if b"\\" not in body:
        return body.count(b'"')
    bare = body.replace(b"\\\\", b"")
    return bare.count(b'"') - bare.count(b'\\"')


def parse(body: bytes) -> tuple[Any, list[tuple[Place, Fault]]]:
    """The document and its faults; the document is None when it cannot be read at all.

    With faults the document is still what could be read, so that its other
    faults can be found too.
    """
    if len(body) > MAX_VALUES and _values(body) > MAX_VALUES:
        return None, [((), Fault("", f"has more than {MAX_VALUES} values"))]
    text = _text(body)
    if isinstance(text, Fault):
        return None, [((), text)]
    _noticed.flaws = False
    try:
        document = _decoder.decode(text)
    except json.JSONDecodeError as error:
        why = error.msg.partition(":")[0].removesuffix(" at")
        rule = f"is not JSON: {why} (line {error.lineno}, column {error.colno})"
        return None, [((), Fault("", rule))]
    except RecursionError:
        return None, [((), _TOO_DEEP)]
    except _TooMany:
        return None, [((), Fault("", f"has an object with more than {MAX_NAMES} names"))]
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth_exceeds(document, MAX_DEPTH):
        return None, [((), _TOO_DEEP)]
    if _noticed.flaws or _ODD_ESCAPE.search(body):
        return document, list(islice(_flaws(document, ()), MOST_FAULTS))
    return document, []


_TOO_DEEP = Fault("", f"is nested deeper than {MAX_DEPTH} levels")


def _values(body: bytes) -> int:
    """How many values there are at most, counted no further than matters.

    What stands in texts counts only as long as it makes no difference.
    """
    found = _marks(body, 0, len(body))
    if found <= MAX_VALUES:
        return found
    found = at = 0
    for text in _STRING.finditer(body):
        found += _marks(body, at, text.start())
        at = text.end()
        if found > MAX_VALUES:
            return found
    return found + _marks(body, at, len(body))


def _marks(body: bytes, start: int, end: int) -> int:
    return sum(body.count(mark, start, end) for mark in (b",", b"[", b"{"))


def _text(body: bytes) -> str | Fault:
    if body.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00", b"{\x00")):
        return Fault(
            "", "is UTF-16 or UTF-32; JSON on a queue must be UTF-8 (RFC 8259 section 8.1)"
        )
    try:
        # A byte order mark is not allowed, and may be ignored by who reads it: same section.
        return body.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        return Fault("", f"is not UTF-8 (at byte {error.start})")


def _depth_exceeds(document: Any, most: int) -> bool:
    level = [document]
    for _ in range(most):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        level = [v for v in inner if isinstance(v, dict | list)]
        if not level:
            return False
    return True


def _flaws(value: Any, place: Place) -> Iterator[tuple[Place, Fault]]:
    """Every flaw below a value; depth is bounded already."""
    if isinstance(value, _Flaw):
        yield place, Fault(path(place), value.rule)
    elif isinstance(value, str):
        rule = _odd(value)
        if rule:
            yield place, Fault(path(place), f"contains {rule}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flaws(item, (*place, index))
    elif isinstance(value, dict):
        twice = value.names if isinstance(value, _Twice) else ()
        for name, item in value.items():
            below = (*place, name)
            if name in twice:
                yield below, Fault(path(below), "is given more than once in one object")
            rule = _odd(name)
            if rule:
                yield below, Fault(path(below), f"has a name that contains {rule}")
            yield from _flaws(item, below)


def _odd(text: str) -> str | None:
    if "\0" in text:
        return "NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half of a surrogate pair, which is no character"
    return None
