"""HTML that comes in data, cut down to what is harmless in a mail.

Owns nh3 and the allow-list. Never lets a class, a style or a picture through:
what the words look like is the theme's matter, and a picture of a stranger's
would tell who has read the mail. The result is markup: it becomes part of the
skeleton's shape, is inlined like the rest, and so costs a full inlining for
each new text.
"""

from __future__ import annotations

import re
from typing import Any

from jinja2 import nodes
from markupsafe import Markup

from mailgate.render.errors import RenderError, TemplateFault
from mailgate.render.links import url

TAGS = frozenset(
    {"p", "br", "hr", "strong", "b", "em", "i", "u", "s", "sub", "sup", "code", "pre"}
    | {"a", "ul", "ol", "li", "blockquote", "h2", "h3"}
)
LINKS = frozenset({"https", "mailto"})
#: Characters of one text, and how deep its elements may stand in each other:
#: libxml2 drops what is deeper than 256, silently.
MAX_CHARACTERS, MAX_DEPTH = 50_000, 20

_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)")
_DEAD_LINK = re.compile(r"<a>(.*?)</a>", re.DOTALL)
_VOID = frozenset({"br", "hr"})
_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127, 0xFFFE, 0xFFFF), 0xFFFD)


def richtext(value: Any) -> Markup:
    """``value`` in a ``<div class="rich">``, with what is not allowed left out.

    Words always stay; tags, attributes and links that are not on the list go.
    Raises ``RenderError`` for what is not text, too long or nested too deeply.
    """
    if not isinstance(value, str):
        raise RenderError("data_invalid", "|richtext was given something else than text")
    if len(value) > MAX_CHARACTERS:
        raise RenderError("too_large", f"|richtext takes {MAX_CHARACTERS} characters")
    # Here and not above: most templates have no such filter, and it is 1.4 MiB in each process.
    import nh3

    text = value.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)
    try:
        html = nh3.clean(
            text,
            tags=set(TAGS),
            clean_content_tags={"script", "style", "title", "template"},
            attributes={"a": {"href"}},
            attribute_filter=_attribute,
            url_schemes=set(LINKS),
            link_rel=None,
        )
    except UnicodeEncodeError:  # a lone surrogate, which JSON can write
        raise RenderError("data_invalid", "|richtext was given half a character") from None
    # A link that leads nowhere is words.
    html = _DEAD_LINK.sub(r"\1", html)
    depth = deepest = 0
    for closing, tag in _TAG.findall(html):
        if tag not in _VOID:
            depth += -1 if closing else 1
            deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise RenderError("data_invalid", f"|richtext takes elements {MAX_DEPTH} deep")
    return Markup(f'<div class="rich" dir="auto">{html}</div>')  # noqa: S704 # cleaned above


def _attribute(tag: str, name: str, value: str) -> str | None:
    try:
        return url(value)
    except RenderError:
        return None


def check_places(tree: nodes.Template, name: str, *, html: bool) -> None:
    """Refuse ``|richtext`` wherever its markup could come to stand in an attribute.

    It may be the end of a printed expression, and nothing else: not an
    argument, not inside a macro, a ``set`` or a ``filter`` block, whose result
    can be printed anywhere. Attributes themselves are seen by ``check_html``.
    Raises ``TemplateFault``.
    """
    uses = [node for node in tree.find_all(nodes.Filter) if node.name == "richtext"]
    if uses and not html:
        raise TemplateFault(f"{name} line {uses[0].lineno}: |richtext is for HTML only")
    printed = {id(node) for output in tree.find_all(nodes.Output) for node in output.nodes}
    boxes = (nodes.Macro, nodes.AssignBlock, nodes.FilterBlock)
    boxed = {id(n) for box in tree.find_all(boxes) for n in box.find_all(nodes.Filter)}
    for use in uses:
        if id(use) not in printed or id(use) in boxed:
            raise TemplateFault(
                f"{name} line {use.lineno}: |richtext ends a printed expression, outside macros"
            )
