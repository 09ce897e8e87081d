"""What a reader would say about a mail as it goes out: too pale, cut off, no words.

Owns the remarks on rendered parts: contrast, Gmail's limit, the plain text. Never
renders by itself, and never looks at data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lxml import etree

from mailgate.render.review import Remark, line_of

#: Gmail shows so many bytes of a mail's HTML, and then "message clipped".
CLIPPED = 102 * 1024
#: WCAG 2.1, 1.4.3: of text on its ground, and of text of 24 px, or 18.7 px and bold.
ENOUGH, ENOUGH_LARGE = 4.5, 3.0

_HEX = re.compile(r"#([0-9a-f]{3}|[0-9a-f]{6})\Z", re.IGNORECASE)
_RGB = re.compile(r"rgb\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)\Z", re.IGNORECASE)
_NAMED = {"white": "#ffffff", "black": "#000000", "red": "#ff0000", "gray": "#808080"}
_LEFT = re.compile(r"</?(?:p|td|tr|br|div|span|a|table|strong|b)\b[^>]*>|&(?:nbsp|amp|lt|gt|#\d+);")

Colour = tuple[int, int, int]


def contrast(one: Colour, other: Colour) -> float:
    """WCAG's ratio of two colours, from 1 to 21."""

    def luminance(colour: Colour) -> float:
        parts = [part / 255 for part in colour]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def too_pale(html: str, sources: Mapping[str, str], page: str) -> list[Remark]:
    """Texts of an inlined document that stand out too little, each pair of colours once.

    Seen are colours in style attributes and ``bgcolor``: what a client that shows no
    sheet sees. The dark scheme is not looked at. ``sources`` are searched for the place;
    ``page`` is named where they do not say.
    """
    out: dict[tuple[Colour, Colour], Remark] = {}
    tree = etree.fromstring(html, etree.HTMLParser())
    body = None if tree is None else tree.find("body")
    for node in () if body is None else body.iter(etree.Element):
        words = (node.text or "") + "".join(child.tail or "" for child in node)
        if not words.strip() or node.tag in ("style", "script", "title") or _hidden(node):
            continue
        ink = _inherited(node, "color") or (0, 0, 0)
        paper = _inherited(node, "background-color") or (255, 255, 255)
        ratio = contrast(ink, paper)
        if ratio < (ENOUGH_LARGE if _large(node) else ENOUGH) and (ink, paper) not in out:
            file, line = _place(node, sources, page)
            rule = f"{_spelled(ink)} on {_spelled(paper)} is {ratio:.1f} to 1, too pale to read"
            out[ink, paper] = (file, line, rule)
    return list(out.values())


def cut_off(html: str) -> str:
    """Why Gmail would cut the mail off; empty when it would not."""
    size = len(html.encode())
    return f"{size // 1024} KB of HTML: Gmail cuts off after 102 KB" if size > CLIPPED else ""


def plain_text(html: str, text: str) -> Iterator[str]:
    """What is wrong with a text part beside its HTML."""
    if not text.strip():
        yield "the text part is empty"
        return
    if found := _LEFT.search(text):
        yield f"the text part holds HTML: {found[0][:40]}"
    flat = re.sub(r"\s", "", text)
    for link in etree.fromstring(html, etree.HTMLParser()).iter("a"):
        target = (link.get("href") or "").strip()
        shown = target.startswith("http") and not _hidden(link, omitted=True)
        if shown and re.sub(r"\s", "", target) not in flat:
            words = " ".join(str(link.xpath("string()")).split())
            yield f"the text part lacks the link of {words[:40]!r}"


def _styles(node: Any) -> dict[str, str]:
    pairs = (part.partition(":") for part in (node.get("style") or "").split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if value.strip()}


def _ancestors(node: Any) -> Iterator[Any]:
    yield node
    yield from node.iterancestors()


def _inherited(node: Any, name: str) -> Colour | None:
    for at in _ancestors(node):
        styles = _styles(at)
        said = styles.get(name) or (
            (styles.get("background") or at.get("bgcolor")) if name != "color" else None
        )
        found = _colour(said or "")
        if found is not None:
            return found
    return None


def _colour(said: str) -> Colour | None:
    said = said.removesuffix("!important").strip().lower()
    said = _NAMED.get(said, said)
    if found := _RGB.match(said):
        return int(found[1]), int(found[2]), int(found[3])
    if found := _HEX.match(said):
        digits = found[1] if len(found[1]) == 6 else "".join(c * 2 for c in found[1])
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    return None


def _spelled(colour: Colour) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _large(node: Any) -> bool:
    size = weight = ""
    for at in _ancestors(node):
        styles = _styles(at)
        size, weight = size or styles.get("font-size", ""), weight or styles.get("font-weight", "")
    pixels = float(size[:-2]) if re.fullmatch(r"\d+(\.\d+)?px", size) else 16.0
    return pixels >= 24 or (pixels >= 18.66 and weight in ("bold", "600", "700", "800", "900"))


def _hidden(node: Any, *, omitted: bool = False) -> bool:
    return any(
        _styles(at).get("display") == "none" or (omitted and at.get("data-text") == "omit")
        for at in _ancestors(node)
    )


def _place(node: Any, sources: Mapping[str, str], otherwise: str) -> tuple[str, int]:
    """Where the colour of an element is said: the rule of a class, else its page."""
    for at in _ancestors(node):
        for name in (at.get("class") or "").split():
            rule = re.compile(rf"\.{re.escape(name)}\b[^{{}}]*{{[^}}]*?(?<![-\w])color\s*:")
            for file, source in sources.items():
                if found := rule.search(source.replace("{{", "((").replace("}}", "))")):
                    return file, line_of(source, found.start())
        if said := _styles(at).get("color"):
            own = re.compile(rf"(?<![-\w])color\s*:\s*{re.escape(said)}", re.IGNORECASE)
            for file, source in sources.items():
                if found := own.search(source):
                    return file, line_of(source, found.start())
            break
    return otherwise, 0
