"""The text part of a mail, derived from its inlined HTML.

Owns the walk over the document and its layout as plain lines. Never fetches,
never wraps: a reader's window is not known.
"""

from __future__ import annotations

import re
from typing import Any

from lxml import etree

#: Around a link's text and target, until ``finish`` knows both for certain.
OPEN, MIDDLE, CLOSE = "\x01", "\x02", "\x03"
INDENT = "\x04"

_SKIPPED = frozenset({"head", "style", "script", "title", "template", "noscript", "svg"})
_PARAGRAPHS = frozenset(
    {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote", "pre", "dl"}
)
_LINES = frozenset(
    {"div", "tr", "td", "th", "li", "dt", "dd", "section", "article", "header", "footer", "main"}
    | {"center", "body", "html", "address", "figure", "figcaption", "caption", "thead", "tbody"}
)
_HIDDEN = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all"
    r"|max-height\s*:\s*0(?:px)?\s*(?:;|$)|font-size\s*:\s*0(?:px)?\s*(?:;|$))",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"[ \t\r\n\f]+")
_SPACES = re.compile(r" {2,}")
_EMPTY_LINES = re.compile(r"\n{3,}")
#: Joiners and fillers that preheaders are padded with, and soft hyphens.
_INVISIBLE = dict.fromkeys((0x00AD, 0x034F, 0x200B, 0x200C, 0xFEFF), None)
LINK = re.compile(f"{OPEN}([^{OPEN}]*?){MIDDLE}([^{OPEN}]*?){CLOSE}")


def derive(html: str) -> str:
    """The text of an inlined document, with links as ``finish`` expects them.

    Layout tables are flattened; tables with header cells become rows of
    ``a | b``, a label with its value ``a: b``; hidden elements and the
    preheader are dropped. ``data-text="omit"`` drops an element,
    ``data-text="lead"`` puts its text before what follows (``1. First step``).
    """
    if not html.strip():
        return ""
    tree = etree.fromstring(html, etree.HTMLParser())
    if tree is None:
        return ""
    walk = _Walk()
    walk.element(tree)
    return walk.text()


def finish(text: str) -> str:
    """Write links as ``text (target)``, or the target alone where the text says the same."""
    while OPEN in text:
        text, found = LINK.subn(_link, text)
        if not found:
            break
    return text


def may_be_target(words: str) -> bool:
    """Whether a link's words could be its target, or the address or number in it."""
    return ":" in words or "@" in words or words[-1:].isdigit()


def _link(found: re.Match[str]) -> str:
    return link(found[1], found[2])


def link(words: str, target: str) -> str:
    """One link as ``finish`` writes it."""
    words, target = words.strip(" \n"), target.strip(" \n")
    if not words:
        return target
    if may_be_target(words) and target in (words, f"mailto:{words}", f"tel:{words}"):
        return words
    return f"{words} ({target})"


class _Walk:
    def __init__(self) -> None:
        # Text, and between it the number of line ends that is wanted at least.
        self.out: list[str | int] = []
        self.lists: list[int | None] = []
        self.in_row = False
        self.glued = False

    def element(self, node: Any) -> None:
        tag = node.tag
        if not isinstance(tag, str) or tag in _SKIPPED or _is_hidden(node):
            return
        if tag == "br":
            self.gap(1, exactly=True)
        elif tag == "hr":
            self.out += [2, "-" * 40, 2]
        elif tag == "img":
            self.words(node.get("alt") or "")
        elif tag == "table" and _is_data(node):
            self.rows(node)
        elif tag == "a":
            self.link(node)
        elif tag in ("ul", "ol"):
            self.gap(2 if not self.lists else 1)
            self.lists.append(0 if tag == "ol" else None)
            self.children(node)
            self.lists.pop()
            self.gap(2 if not self.lists else 1)
        elif tag == "li":
            self.item(node)
        elif node.get("data-text") == "lead":
            self.lead(node)
        else:
            gap = 2 if tag in _PARAGRAPHS else 1 if tag in _LINES else 0
            self.gap(gap)
            self.children(node)
            self.gap(gap)

    def children(self, node: Any) -> None:
        self.words(node.text or "")
        for child in node:
            self.element(child)
            self.words(child.tail or "")

    def gap(self, count: int, exactly: bool = False) -> None:
        if self.in_row and count:
            self.words(" ")
        elif self.glued and count:
            self.glued = False
        elif exactly:
            self.out.append("\n")
        elif count:
            self.out.append(count)

    def words(self, text: str) -> None:
        if text:
            if not text.isspace():
                self.glued = False
            self.out.append(_BLANKS.sub(" ", text.translate(_INVISIBLE)))

    def link(self, node: Any) -> None:
        target = (node.get("href") or "").strip()
        if not target or target.startswith("#"):
            self.children(node)
            return
        self.out.append(OPEN)
        self.children(node)
        self.out.append(f"{MIDDLE}{target}{CLOSE}")

    def item(self, node: Any) -> None:
        self.gap(1)
        mark = "- "
        if self.lists and self.lists[-1] is not None:
            self.lists[-1] += 1
            mark = f"{self.lists[-1]}. "
        self.out.append(INDENT * (len(self.lists) - 1) + mark)
        self.glued = True
        self.children(node)
        self.gap(1)

    def lead(self, node: Any) -> None:
        """A number or sign that stands beside what follows it."""
        self.gap(1)
        self.out.append(f"{_row_text(node)}. ")
        self.glued = True

    def rows(self, table: Any) -> None:
        self.gap(2)
        for row in table.iter("tr"):
            cells = list(row.iterchildren("td", "th"))
            # A label beside its value reads better as such.
            pair = len(cells) == 2 and cells[0].tag == "th" and cells[1].tag == "td"
            words = [_row_text(cell) for cell in cells]
            if any(words):
                self.out += [(": " if pair else " | ").join(words), 1]
        self.gap(2)

    def text(self) -> str:
        parts: list[str] = []
        wanted = 0
        for piece in self.out:
            if isinstance(piece, int):
                wanted = max(wanted, piece)
            elif wanted and piece == " ":
                continue
            else:
                if wanted and parts:
                    parts.append("\n" * wanted)
                wanted = 0
                parts.append(piece)
        lines = [line.strip(" ") for line in _SPACES.sub(" ", "".join(parts)).split("\n")]
        return _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip("\n").replace(INDENT, "  ")


def _row_text(cell: Any) -> str:
    inner = _Walk()
    inner.in_row = True
    inner.children(cell)
    return inner.text()


def _is_hidden(node: Any) -> bool:
    style = node.get("style")
    return (
        node.get("hidden") is not None
        or (style is not None and _HIDDEN.search(style) is not None)
        or node.get("data-text") == "omit"
    )


def _is_data(table: Any) -> bool:
    if table.get("role") in ("presentation", "none"):
        return False
    return next(table.iter("th"), None) is not None
