"""What a careful reader of a template's sources would say: each remark with file and line.

Owns the remarks that need no rendering: CSS that mail programs do not know, pictures
without words, variables that nobody uses. What is *refused* is refused by ``check.py``
before; here is what would go out and look wrong somewhere.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import meta

from mailgate.render import check
from mailgate.render.sandbox import Sandbox
from mailgate.render.template import Template, Variant

#: File, line and rule.
Remark = tuple[str, int, str]

_STYLE = re.compile(r"<style\b([^>]*)>(.*?)</style", re.IGNORECASE | re.DOTALL)
_ATTRIBUTE = re.compile(r"\bstyle\s*=\s*(\"[^\"]*\"|'[^']*')", re.IGNORECASE)
_SHEET = re.compile(r"{%-?\s*include\s+[\"']([^\"']+\.css)[\"']")
_IMAGE = re.compile(r"<img\b(?:[^>\"']|\"[^\"]*\"|'[^']*')*>", re.IGNORECASE)
_TABLE = re.compile(r"<table\b(?:[^>\"']|\"[^\"]*\"|'[^']*')*>", re.IGNORECASE)
_COMMENT = re.compile(r"{#.*?#}", re.DOTALL)
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

#: Inlined CSS that a wide-spread mail program ignores, and who it is.
_UNSUPPORTED = [
    (re.compile(pattern, re.IGNORECASE), f"{what} is not known to {who}")
    for pattern, what, who in (
        (r"(?<![-\w])display\s*:\s*(?:inline-)?(?:flex|grid)", "display: flex or grid", "Outlook"),
        (r"(?<![-\w])(?:flex|grid|gap|order|justify-content|align-items)(?:-[a-z]+)*\s*:",
         "flexbox and grid", "Outlook"),
        (r"(?<![-\w])position\s*:", "position", "Gmail and Outlook"),
        (r"(?<![-\w])float\s*:", "float", "Outlook"),
        (r"(?<![-\w])(?:transform|transition|animation|filter|clip-path)(?:-[a-z]+)*\s*:",
         "movement and transformation", "Outlook and Gmail"),
        (r"(?<![-\w])object-fit\s*:", "object-fit", "Outlook and Gmail"),
        (r"(?<![-\w])background(?:-image)?\s*:[^;}]*url\(", "a background picture", "Outlook"),
        (r"(?:linear|radial|conic)-gradient\(", "a gradient", "Outlook"),
        (r"\bvar\(\s*--|(?<![-\w])--[a-z]", "a custom property", "Outlook and Gmail"),
        (r"\b(?:calc|clamp|min|max)\(", "a computed length", "Outlook"),
        (r":[^;{}]*\d(?:rem|vw|vh|ch)\b", "a length in rem, vw, vh or ch", "Outlook"),
        (r"(?<![-\w])opacity\s*:", "opacity", "Outlook"),
    )
]  # fmt: skip


def remarks(template: Template) -> list[Remark]:
    """Everything there is to say about the sources of a template, without repetition."""
    out: dict[Remark, None] = {}
    used: dict[str, set[str]] = {}
    for variant in template.variants.values():
        sources, used[variant.locale] = _read(variant)
        for name, source in sources.items():
            if not name.endswith(".css"):
                out.update(dict.fromkeys(_markup(name, source)))
        for name, line, css in _inlined(sources):
            out.update(dict.fromkeys(_css(name, line, css)))
    out.update(dict.fromkeys(_variables(template, used)))
    return list(out)


def line_of(source: str, at: int) -> int:
    return source.count("\n", 0, at) + 1


def sources_of(variant: Variant) -> dict[str, str]:
    """The HTML of a language and all that it takes in, by name."""
    return _read(variant)[0]


def _read(variant: Variant) -> tuple[dict[str, str], set[str]]:
    environment: Any = variant.html.environment
    parts = [variant.subject, variant.html, *([variant.text] if variant.text else [])]
    sources: dict[str, str] = {}
    free: set[str] = set()
    pending = [str(part.name) for part in parts]
    while pending:
        name = pending.pop()
        if name in sources:
            continue
        sources[name], names, uses = _facts(environment, name)
        free |= names
        pending += uses
    return {n: s for n, s in sources.items() if n.endswith((".html", ".css"))}, free


@functools.lru_cache(maxsize=64)
def _facts(environment: Sandbox, name: str) -> tuple[str, frozenset[str], tuple[str, ...]]:
    """A source, the variables that it takes, and what it uses; languages share the layout."""
    source = environment.sources[name]
    tree = environment.tree(source, name)
    uses = tuple(str(n) for n in meta.find_referenced_templates(tree))
    return source, frozenset(check.free_names(tree)), uses


def _inlined(sources: Mapping[str, str]) -> Iterator[Remark]:
    """Each piece of CSS that goes into style attributes: file, first line, text."""
    for name, source in sources.items():
        source = _COMMENT.sub(_blank, source)
        for block in _STYLE.finditer(source):
            # What stays a sheet is for those who read sheets; they know more.
            if "data-premailer" in block[1] or _in_outlook(source, block.start()):
                continue
            yield name, line_of(source, block.start(2)), block[2]
            for sheet in _SHEET.findall(block[2]):
                if sheet in sources:
                    yield sheet, 1, sources[sheet]
        for attribute in () if name.endswith(".css") else _ATTRIBUTE.finditer(source):
            yield name, line_of(source, attribute.start()), attribute[1]


def _in_outlook(source: str, at: int) -> bool:
    return source.rfind("<!--[if mso", 0, at) > source.rfind("<![endif]", 0, at)


def _blank(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n")


def _css(name: str, line: int, css: str) -> Iterator[Remark]:
    css = _CSS_COMMENT.sub(_blank, _COMMENT.sub(_blank, css))
    for pattern, rule in _UNSUPPORTED:
        for found in pattern.finditer(css):
            yield name, line + css.count("\n", 0, found.start()), rule


def _markup(name: str, source: str) -> Iterator[Remark]:
    source = _COMMENT.sub(_blank, source)
    for image in _IMAGE.finditer(source):
        if not re.search(r"\salt\s*=", image[0], re.IGNORECASE):
            yield (
                name,
                line_of(source, image.start()),
                'a picture without alt: say what it shows, or alt="" where it says nothing',
            )
        if re.search(r"\ssrc\s*=\s*[\"']http:", image[0], re.IGNORECASE):
            yield name, line_of(source, image.start()), "a picture over http: is shown by few"
    for table in _TABLE.finditer(source):
        if "role" in table[0].lower() or re.search(
            r"<th\b", source[table.end() : source.find("</table", table.end())], re.IGNORECASE
        ):
            continue
        if not re.search(r"{{|{%", source[table.end() : source.find("</table", table.end())]):
            yield (
                name,
                line_of(source, table.start()),
                'a table without heads is layout: give it role="presentation"',
            )


def _variables(template: Template, used: Mapping[str, set[str]]) -> Iterator[Remark]:
    """Variables that are asked for and said nowhere, or not in each language."""
    where = f"{template.name}/context.schema.json"
    environment: Any = next(iter(template.variants.values())).html.environment
    schema = environment.sources.get(where, "")
    # ``product`` is taken by every layout, ``time_zone`` by the filters of dates.
    for name in template.schema["properties"]:
        silent = sorted(locale for locale, names in used.items() if name not in names)
        if not silent or name in ("product", "time_zone"):
            continue
        said = re.search(rf"\"{re.escape(name)}\"\s*:", schema)
        line = line_of(schema, said.start()) if said else 0
        nowhere = len(silent) == len(used)
        rule = "is used nowhere" if nowhere else f"is not used in {', '.join(silent)}"
        yield where, line, f"{name} {rule}"
