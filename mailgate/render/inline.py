"""CSS into style attributes: premailer, with its traps mended.

Owns premailer and cssutils; nothing else may import them. What ``inline``
returns is by definition correct; ``skeleton.py`` only makes it cheap.
Never opens a socket or a file.

premailer 3.10 keeps one cache for three functions with one key space, so that
a message with ``style="b"`` breaks every later template with a selector ``b``;
leaves fetching to cssutils, which follows ``@import`` whatever
``allow_network`` says; copies ``!important`` into HTML attributes (its issue
170) and writes over the author's; and is not thread-safe (issue 218). The
version is pinned; ``tests/unit/render/test_inline.py`` holds a test for each.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from lxml import etree
from lxml.cssselect import CSSSelector

# premailer imports requests, for what it may never do here: 6 MiB in every process. It
# gets an empty module instead, which nobody else sees.
_fetching = "requests" not in sys.modules
sys.modules.setdefault("requests", ModuleType("requests"))
try:
    import cssutils  # type: ignore[import-untyped]
    import cssutils.util  # type: ignore[import-untyped]
    import premailer.merge_style  # type: ignore[import-untyped]
    import premailer.premailer  # type: ignore[import-untyped]
    from premailer import Premailer
finally:
    if _fetching:
        del sys.modules["requests"]

#: Larger documents are refused: premailer's time grows with elements times rules.
MAX_HTML = 512 * 1024

#: Selectors, and selectors times elements.
MAX_SELECTORS, MAX_MATCHES = 1500, 1_000_000

_lock = threading.RLock()
_CACHED = 4096


def _refuse_fetch(url: str) -> None:
    """In place of cssutils' fetcher, which opens http, https and file URLs."""


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A cache of its own for one function, least recently used out first.

    Called with ``_lock`` held: premailer runs one document at a time.
    """
    kept: OrderedDict[Any, Any] = OrderedDict()

    def cached(*args: Any, **kwargs: Any) -> Any:
        key = (args, tuple(kwargs.items()))
        with _lock:
            if key in kept:
                kept.move_to_end(key)
                return kept[key]
            result = kept[key] = function(*args, **kwargs)
            if len(kept) > _CACHED:
                kept.popitem(last=False)
            return result

    return cached


def _parse_sheet(css: str, validate: bool = True) -> Any:
    return cssutils.CSSParser(fetcher=_refuse_fetch, validate=validate).parseString(css)


def _parse_pairs(css: str, validate: bool = True) -> list[tuple[str, str]]:
    style = cssutils.CSSParser(fetcher=_refuse_fetch, validate=validate).parseStyle(css)
    return [(p.name.strip(), premailer.merge_style.format_value(p)) for p in style]


def _mend() -> None:
    cssutils.log.setLevel(logging.CRITICAL)
    cssutils.log.raiseExceptions = False
    cssutils.util._defaultFetcher = _refuse_fetch
    pairs = _bounded(_parse_pairs)
    premailer.premailer._cache_parse_css_string = _bounded(_parse_sheet)
    premailer.premailer._create_cssselector = _bounded(CSSSelector)
    premailer.premailer.csstext_to_pairs = pairs
    premailer.merge_style.csstext_to_pairs = pairs


_mend()

_IMPORTANT = re.compile(r"\s*!\s*important", re.IGNORECASE)
_SIZED = frozenset({"table", "td", "th", "img"})
_PAINTED = frozenset({"body", "table", "tr", "td", "th"})
_ALIGNED = frozenset({"tr", "td", "th", "p", "div", "h1", "h2", "h3", "h4", "h5", "h6"})
_VALIGNED = frozenset({"tr", "td", "th"})
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)(px|%)?")
_COLOUR = re.compile(r"#(?:[0-9a-fA-F]{3}){1,2}|[a-zA-Z]+")


class _Mended(Premailer):  # type: ignore[misc] # premailer has no types
    def _style_to_basic_html_attributes(
        self, element: Any, style_content: str, force: bool = False
    ) -> None:
        """HTML attributes for old clients, where the attribute exists and has such a value.

        The author's own attributes win: ``width="600"`` is what Outlook reads
        where the style says ``width: 100%``.
        """
        tag = element.tag
        for part in _IMPORTANT.sub("", style_content).split(";"):
            key, colon, value = part.partition(":")
            key, value = key.strip().lower(), value.strip()
            attribute = ""
            if not colon:
                continue
            if key == "text-align" and tag in _ALIGNED and value in ("left", "right", "center"):
                attribute = "align"
            elif key == "vertical-align" and tag in _VALIGNED:
                attribute = "valign" if value in ("top", "middle", "bottom", "baseline") else ""
            elif key == "background-color" and tag in _PAINTED and _COLOUR.fullmatch(value):
                attribute = "" if value.lower() in ("transparent", "inherit") else "bgcolor"
                value = self.six_color(value)
            elif key in ("width", "height") and tag in _SIZED:
                found = _LENGTH.fullmatch(value)
                attribute = key if found else ""
                value = value.removesuffix("px")
            if attribute and attribute not in element.attrib:
                element.attrib[attribute] = value


class InlineError(ValueError):
    """The document cannot be inlined; says why."""


def sheets(html: str) -> Iterator[str]:
    """The style sheets that premailer inlines, in order; in linear time."""
    low = html.lower()
    at = 0
    while (start := low.find("<style", at)) >= 0:
        inside = low.find(">", start)
        if inside < 0:
            return
        at = low.find("</style", inside)
        at = len(html) if at < 0 else at
        if "ignore" not in low[start:inside] or "data-premailer" not in low[start:inside]:
            yield html[inside + 1 : at]


def check_cost(html: str) -> None:
    """Refuse what premailer would compute on for more than some seconds.

    It cannot be interrupted: cssutils takes about a millisecond a rule, each
    selector looks at each element, and ``a ~ b`` compares all siblings with each
    other. Raises ``InlineError``.
    """
    rules = siblings = 0
    for css in sheets(html):
        # What stands before each brace: selectors, or an at-rule.
        for part in css.split("{")[:-1]:
            prelude = part.rpartition("}")[2]
            rules += 1 + prelude.count(",")
            siblings += prelude.count("~")
    elements = html.count("<") if rules else 0
    if rules > MAX_SELECTORS:
        raise InlineError(f"more than {MAX_SELECTORS} selectors to inline")
    if elements * (rules + siblings * elements) > MAX_MATCHES:
        raise InlineError(f"{rules} selectors over {elements} elements are too many to inline")


def inline(html: str) -> str:
    """Give ``html`` with the rules of its ``<style>`` blocks in style attributes.

    A block with ``data-premailer="ignore"`` stays as it is (media queries, dark
    mode). One document at a time in a process. Raises ``InlineError``.
    """
    if len(html) > MAX_HTML:
        raise InlineError(f"HTML of more than {MAX_HTML} characters")
    check_cost(html)
    with _lock:
        try:
            out = _Mended(
                html,
                allow_network=False,
                allow_loading_external_files=False,
                strip_important=False,
                disable_validation=True,
                cssutils_logging_level=logging.CRITICAL,
                remove_classes=False,
            ).transform(pretty_print=False)
        except etree.LxmlError as error:
            raise InlineError(f"not HTML: {type(error).__name__}") from None
        except Exception as error:  # premailer raises whatever its parts raise
            raise InlineError(f"premailer: {type(error).__name__}: {error}") from error
    return str(out)
