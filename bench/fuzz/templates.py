"""A malicious author: whatever stands in a template, it reaches nothing and ends.

Owns the pieces that sources are put together from, and the watch over what a rendering
touches: no file, no socket, no process, no object of Python's that data is not.
"""

from __future__ import annotations

import re
import sys
import time
from threading import get_ident
from typing import Any

from bench.fuzz import Bound, hold, noted
from mailgate.render.budget import SECONDS
from mailgate.render.catalogue import built_in_root
from mailgate.render.errors import RenderError, TemplateFault
from mailgate.render.sandbox import produce
from mailgate.render.sources import Reader
from mailgate.render.theme import read_theme

#: What a source may take, reading and checking it included; a rendering ends at ``SECONDS``.
BOUND = Bound(seconds=2 * SECONDS + 1, each=0, most=2 * SECONDS + 1, memory=768, input=4096)

#: Each byte of an input is one of these.
PIECES = [
    *("{{ ", " }}", "{% ", " %}", "{# ", " #}", "{%- ", " -%}", "(", ")", "[", "]", "{", "}"),
    *(".", ",", ":", "|", "~", "+", "-", "*", "/", "//", "**", "%", "==", "!=", "<", ">", "="),
    *(" in ", " not ", " and ", " or ", " is ", " if ", " else ", "'", '"', "\n", " ", "\\"),
    *("{% for a in items %}", "{% for b in a %}", "{% for k, v in extra.items() %}"),
    *("{% endfor %}", "{% if name %}", "{% else %}", "{% endif %}", "{% set a = ", "{% set a %}"),
    *("{% endset %}", "{% macro m(a) %}", "{% macro n(a, b=1) %}", "{% endmacro %}", "{{ m(a) }}"),
    *("{{ n(m(a)) }}", "{% call m(1) %}", "{% endcall %}", "{{ caller() }}", "{% block x %}"),
    *("{% endblock %}", "{{ self.x() }}", "{% filter upper %}", "{% endfilter %}", "{% raw %}"),
    *("{% endraw %}", "{% include 'kit.html' %}", "{% import 'kit.html' as kit %}", "kit.twice"),
    *("{% from 'kit.html' import twice %}", "{% extends 'kit.html' %}", "{% with a = name %}"),
    *("{% endwith %}", "{% autoescape false %}", "{% endautoescape %}", "{% do ", "{% break %}"),
    *("name", "items", "extra", "number", "huge", "nothing", "flag", "deep", "long", "a", "b", "k"),
    *("v", "loop", "self", "caller", "varargs", "kwargs", "theme", "theme.color", "loop.index"),
    *("loop.cycle", "loop.changed", "loop.previtem", "loop(", "true", "none", "0", "1", "-1", "9"),
    *("1e308", "9999999999", "0.1", "'x'", "'%s'", "'{0}'", "''", "[]", "{}", "[1,2,3]", "{'a':1}"),
    *("__class__", "__mro__", "__subclasses__", "__init__", "__globals__", "__builtins__"),
    *("__call__", "__dict__", "__getattribute__", "_fail_with_undefined_error", "gi_frame"),
    *("f_back", "cr_code", "mro", "format", "format_map", "join", "items", "keys", "values"),
    *("append", "pop", "update", "clear", "environment", "globals", "_TemplateReference__context"),
    *("range(", "lipsum(", "dict(", "cycler(", "joiner(", "namespace(", "debug", "get_flashed"),
    *("|attr('__class__')", "|xmlattr", "|map(attribute='__class__')", "|map('attr', 'x')"),
    *("|map('upper')", "|selectattr('a')", "|selectattr('__class__', 'defined')", "|list"),
    *("|rejectattr('a', 'in', name)", "|sort", "|sort(attribute='a')", "|unique", "|reverse"),
    *("|join", "|join(name)", "|join(',', attribute='a')", "|first", "|last", "|length", "|int"),
    *("|int(0, 36)", "|float", "|abs", "|upper", "|title", "|capitalize", "|trim", "|lines"),
    *("|paragraphs", "|truncate(5)", "|truncate(99999999)", "|default(name)", "|d(1)", "|safe"),
    *("|url", "|urlencode", "|richtext", "|date", "|datetime", "|time", "|money('EUR')"),
    *("|number", "|number(99)", "|filesize", "|money(name)", "|format", "|replace('a', 'b')"),
    *("|center(9999999)", "|batch(1)", "|indent", "|tojson", "|pprint", "|groupby('a')", "|sum"),
    *(" is defined", " is mapping", " is divisibleby(0)", " is sameas(1)", " is callable"),
    *(" is in(items)", " is eq(a)", " is filter('x')", "<p>", "</p>", '<a href="', '">', "<b "),
    *("<script>", "<style>", "</style>", '<img src="{{ name|url }}">', "{{ name }}", "x" * 200),
]
KIT = "{% macro twice(a) %}{{ a }}{{ a }}{% endmacro %}{% block x %}kit{% endblock %}"
DATA: dict[str, Any] = {
    "name": "A\x00\u2028\ud800<script>{{ 7*7 }}{0.__class__}%s \U0001f600",
    "items": [[1, 2], "two", {"a": [3]}, None, 4.5, {"a": "x", "__class__": "own"}] * 4,
    "extra": {"a": 1, "items": [1], "__class__": {"__mro__": "own"}, "": "empty"},
    "number": 12345678901234567890,
    "huge": 10**127,
    "nothing": None,
    "flag": True,
    "deep": [[[[[[[["bottom"]]]]]]]],
    "long": "word & <word>\r\n" * 16_000,
    "a": "2030-01-31",
    "theme2": 1,
}
_LEAK = re.compile(
    r"<(?:built-in|class|function|bound method|generator|module|code|frame)\b| at 0x"
)
#: What Python tells of itself (PEP 578) when something leaves a computation.
_OUTSIDE = (
    "open",
    "os.",
    "socket.",
    "subprocess.",
    "shutil.",
    "ctypes.",
    "exec",
    "compile",
    "urllib.",
)


class _Watch:
    """Hears of everything that its thread opens while ``on``; what others do is no template's."""

    on = False
    there = False
    thread = 0

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or self.thread != get_ident() or not event.startswith(_OUTSIDE):
            return
        if event == "open" and "locale-data" in str(arguments[0]):
            return  # Babel reads a language when it is first wanted
        if event in ("exec", "open") and "site-packages" in str(arguments[0]):
            return  # a library's own import
        self.on = False
        hold(False, f"a template touches {event} {arguments!r:.200}")

    def begin(self) -> None:
        if not self.there:  # a hook stays for as long as the process
            self.there = True
            sys.addaudithook(self.hear)
        self.thread = get_ident()
        self.on = True


_watch = _Watch()
_THEME = read_theme("default.json", (built_in_root() / "_theme" / "default.json").read_text())


def source(data: bytes) -> str:
    return "".join(PIECES[byte % len(PIECES)] for byte in data[:400])


def run(data: bytes) -> str:
    """How it ended: a word. The first byte says whether it is HTML."""
    html = not data or data[0] % 2 == 0
    text = source(data[1:])
    noted(len(text))
    return attempt(text, html=html)


def attempt(text: str, *, html: bool = True, data: dict[str, Any] = DATA) -> str:
    name = "t/en.html" if html else "t/en.txt"
    reader = Reader({"kit.html": KIT}, _THEME)
    reader.sources[name] = text
    begun = time.thread_time()
    try:
        reader.closure(name, html=html)
        template = reader.compiled(name, html=html)
    except TemplateFault:
        return "refused"
    _watch.begin()
    try:
        pieces = produce(template, data, None)
        said = sum(map(len, pieces))
    except RenderError as error:
        return error.kind
    finally:
        _watch.on = False
        took = time.thread_time() - begun
        hold(took <= 2 * SECONDS + 1, f"a rendering ends, and took {took:.1f} s")
    if said < 1 << 20:
        hold(not _LEAK.search("".join(pieces)), "a template prints what data is, and no object")
    return "made"


def encoded(text: str) -> bytes:
    """The shortest input for a source out of ``PIECES`` (for seeds)."""
    out = bytearray(1)
    known = sorted(dict.fromkeys(PIECES), key=len, reverse=True)
    while text:
        piece = next((p for p in known if text.startswith(p)), None)
        if piece is None:
            text = text[1:]
            continue
        out.append(PIECES.index(piece))
        text = text[len(piece) :]
    return bytes(out)


def seeds() -> list[bytes]:
    said = [
        "<p>{{ name }}</p>",
        "{% for a in items %}{{ loop.index }}{% if name %}{{ a }}{% endif %}{% endfor %}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(name) }}",
        "{% import 'kit.html' as kit %}{{ kit.twice(name) }}",
        "{% set a = name ~ name %}{{ a|upper|truncate(5) }}",
        "{% set a %}<p>{{ name }}</p>{% endset %}{{ a }}",
        "{{ items|map(attribute='__class__')|join(name) }}",
        "{% for k, v in extra.items() %}{{ k }}{% endfor %}",
        "{{ number|money('EUR') }}{{ number|number }}{{ number|filesize }}{{ a|date }}",
        "{{ long|lines|join(',', attribute='a') }}{{ long|paragraphs|length }}",
        "{% block x %}{{ self.x() }}{% endblock %}",
        "{% call m(1) %}{{ caller() }}{% endcall %}",
        "{{ long|richtext }}{{ name|url }}{{ long|urlencode }}",
        "{% filter upper %}{{ name }}{% endfilter %}",
        "{{ (1 + number) * 9 // 9 % 9 }}",
    ]
    return [encoded(text) for text in said]


WORDS: list[str] = []
assert len(PIECES) <= 256
