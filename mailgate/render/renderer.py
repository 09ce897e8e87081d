"""The front of the room: a letter in, its bytes out.

Owns the choice between the filled skeleton and the full rendering, and the
checks that keep them equal. Never touches the network, the clock or the disk:
equal letters give equal bytes, on every machine that has the same templates.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lxml import etree

from mailgate.model.address import Address
from mailgate.model.message import Letter
from mailgate.render import encode, mime, skeleton, text
from mailgate.render.budget import joined
from mailgate.render.catalogue import Catalogue
from mailgate.render.dkim import Signer
from mailgate.render.errors import RenderError
from mailgate.render.filters import URL_SCHEMES
from mailgate.render.inline import MAX_HTML, InlineError, inline
from mailgate.render.printing import clean
from mailgate.render.sandbox import produce
from mailgate.render.template import Broken, Template, Variant

_log = logging.getLogger(__name__)

#: A letter's own text or HTML (characters).
MAX_BODY = 2 * 2**20
#: Of the shapes that are new, the first few and then every so many are proven.
_PROVEN_FIRST, _PROVEN_EACH = 8, 32

_STYLE = re.compile(r"<style[\s>]", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_PREVIEW_SENDER = Address("sender@example.com", "Example")


@dataclass(frozen=True, slots=True)
class Parts:
    """A template with its data in place, before it becomes a mail."""

    subject: str
    html: str
    text: str


class Renderer:
    """Renders letters by a catalogue. Safe to share between threads."""

    def __init__(
        self, catalogue: Catalogue, *, signer: Signer | None = None, cache_bytes: int = 64 << 20
    ) -> None:
        """``signer`` has the last word on the bytes: none, and mails are not signed."""
        self.catalogue = catalogue
        self._signer = signer
        self.cache = skeleton.Cache(cache_bytes)
        self.mismatches = 0
        self._compiled = 0

    def render(self, letter: Letter) -> bytes:
        """The bytes of ``letter``. Raises ``RenderError``, and then always will."""
        body = self._own(letter) if letter.template is None else self._templated(letter)
        content = mime.build(letter, body)
        if self._signer is None:
            return content
        return self._signer.sign(letter.sender.domain, letter.date // 1000, content)

    def preview(self, template: str, data: Mapping[str, Any], locale: str | None = None) -> Parts:
        """The parts of a template as they would be sent. Raises ``RenderError``."""
        found, variant = self._find(template, locale, data)
        context = found.context(data, variant, _PREVIEW_SENDER, None)
        subject = found.subject(variant, context)
        values: list[str] = []
        plan = self._plan(found, variant, context, values)
        html = self._full(variant, context) if plan is None else plan.html(values)
        if variant.text is not None:
            words = self._authored(variant, context)
        else:
            words = _derived(html) if plan is None else plan.text(values)
        return Parts(subject, html, words)

    def prove(self, template: str, data: Mapping[str, Any], locale: str | None = None) -> list[str]:
        """What differs between the filled skeleton and the full rendering; empty when nothing.

        For checking templates before they serve; costs two runs of premailer.
        """
        found, variant = self._find(template, locale, data)
        context = found.context(data, variant, _PREVIEW_SENDER, None)
        values: list[str] = []
        plan = self._plan(found, variant, context, values)
        if plan is None:
            return []
        html = self._full(variant, context)
        out = [] if _same_document(plan.html(values), html) else ["the HTML"]
        if variant.text is None and plan.text(values) != _derived(html):
            out.append("the text")
        return out

    def warm(self) -> None:
        """Make the skeletons of every fixture, so that the first messages find them."""
        for name in self.catalogue.names():
            found = self.catalogue.get(name)
            if isinstance(found, Template):
                for variant in found.variants.values():
                    for data in found.fixtures.values():
                        context = found.context(data, variant, _PREVIEW_SENDER, None)
                        self._plan(found, variant, context, [])

    def _find(
        self, name: str, locale: str | None, data: Mapping[str, Any]
    ) -> tuple[Template, Variant]:
        found = self.catalogue.get(name)
        if found is None:
            raise RenderError("template_missing", f"there is no template {name}")
        if isinstance(found, Broken):
            raise RenderError("template_broken", f"{name}: {found.error}")
        faults = found.faults(data)
        if faults:
            raise RenderError(
                "data_invalid", "; ".join(f"{f.field}: {f.rule}" for f in faults[:20])
            )
        return found, found.variant(locale)

    def _templated(self, letter: Letter) -> mime.Body:
        data = letter.data or {}
        assert letter.template is not None
        found, variant = self._find(letter.template, letter.locale, data)
        url = letter.unsubscribe.url if letter.unsubscribe else None
        context = found.context(data, variant, letter.sender, url)
        subject = found.subject(variant, context)
        values: list[str] = []
        plan = self._plan(found, variant, context, values)
        if plan is None:
            html = self._full(variant, context)
            wire = encode.quoted_printable(html)
            words = "" if variant.text else encode.quoted_printable(_derived(html))
        else:
            wire = plan.html_wire(values)
            words = "" if variant.text else plan.derived_wire(values)
        if variant.text is not None:
            words = encode.quoted_printable(self._authored(variant, context))
        if len(wire) + len(words) > found.manifest.max_bytes:
            raise RenderError("too_large", f"more than {found.manifest.max_bytes} bytes")
        return mime.Body(subject, words, wire)

    def _plan(
        self, found: Template, variant: Variant, context: Mapping[str, Any], values: list[str]
    ) -> skeleton.Plan | None:
        """The skeleton for this rendering; fills ``values``. ``None``: render in full."""
        if variant.capturing:
            return None
        chunks = produce(variant.html, context, values)
        if sum(map(len, values)) > found.manifest.max_bytes:
            raise RenderError("too_large", f"values of more than {found.manifest.max_bytes} bytes")
        key: tuple[object, ...] = (variant.html, *chunks)
        entry = self.cache.get(key)
        if entry is None:
            entry = self._compile(key, chunks, values, (), variant, context, found)
        if isinstance(entry, skeleton.Sensitive):
            indices = entry.indices
            key = (key, tuple(values[i] for i in indices))
            entry = self.cache.get(key)
            if entry is None:
                entry = self._compile(key, chunks, values, indices, variant, context, found)
        return entry if isinstance(entry, skeleton.Plan) else None

    def _compile(
        self,
        key: tuple[object, ...],
        chunks: Sequence[str],
        values: Sequence[str],
        indices: Sequence[int],
        variant: Variant,
        context: Mapping[str, Any],
        found: Template,
    ) -> skeleton.Entry:
        weight = sum(map(len, chunks))
        if weight > found.manifest.max_bytes:
            raise RenderError("too_large", f"HTML of more than {found.manifest.max_bytes} bytes")
        source = skeleton.substitute(chunks, values, indices) if indices else "".join(chunks)
        try:
            entry = skeleton.compile_skeleton(source, len(values) - len(indices))
        except InlineError as error:
            raise RenderError("html_invalid", f"{found.name}: {error}") from None
        if indices and isinstance(entry, skeleton.Sensitive):
            entry = skeleton.Whole("the shape changes with its values")
        self._compiled += 1
        proving = self._compiled <= _PROVEN_FIRST or self._compiled % _PROVEN_EACH == 0
        if isinstance(entry, skeleton.Plan) and proving:
            entry = self._proven(entry, values, variant, context)
        self.cache.put(key, entry, weight)
        return entry

    def _proven(
        self,
        plan: skeleton.Plan,
        values: Sequence[str],
        variant: Variant,
        context: Mapping[str, Any],
    ) -> skeleton.Entry:
        """The plan, if it makes what the full rendering makes; else never again this shape."""
        if _same_document(plan.html(values), self._full(variant, context)):
            return plan
        self.mismatches += 1
        _log.error("template %s: the skeleton differs", variant.html.name)
        return skeleton.Whole("the filled skeleton differs from the full rendering")

    def _full(self, variant: Variant, context: Mapping[str, Any]) -> str:
        html = _inlined(joined(produce(variant.html, context, None), MAX_HTML))
        if variant.capturing:
            _check_links(html)
        return html

    def _authored(self, variant: Variant, context: Mapping[str, Any]) -> str:
        assert variant.text is not None
        words = joined(produce(variant.text, context, None), MAX_BODY)
        return re.sub(r"\n{3,}", "\n\n", words).strip("\n") + "\n"

    def _own(self, letter: Letter) -> mime.Body:
        """A letter that brings its own subject, text and HTML."""
        if letter.subject is None or (letter.text is None and letter.html is None):
            raise RenderError("data_invalid", "a letter has a template, or a subject and a body")
        if len(letter.text or "") + len(letter.html or "") > MAX_BODY:
            raise RenderError("too_large", f"text and HTML of more than {MAX_BODY} characters")
        html = None
        words = None if letter.text is None else _wire_text(letter.text)
        if letter.html is not None:
            # A declared encoding would be wrong by now, and lxml refuses it in text.
            html = clean(letter.html)
            if declared := _XML_DECLARATION.match(html):
                html = html[declared.end() :]
            if _STYLE.search(html):
                html = _inlined(html)
            if words is None:
                words = _wire_text(_derived(html))
        wire = None if html is None else encode.quoted_printable(html)
        return mime.Body(letter.subject, words, wire)


def _same_document(one: str, other: str) -> bool:
    """Whether two documents parse to the same tree.

    libxml2 writes an attribute in single quotes when it holds double ones, and
    leaves ``<!--`` in attributes alone; a filled skeleton escapes both always.
    """
    if one == other:
        return True
    trees = [etree.fromstring(html, etree.HTMLParser()) for html in (one, other)]
    written = [etree.tostring(tree, encoding="unicode", method="html") for tree in trees]
    return written[0] == written[1]


def _wire_text(words: str) -> str:
    return encode.quoted_printable(clean(words)) or "\r\n"


def _derived(html: str) -> str:
    try:
        return text.finish(text.derive(html))
    except (etree.LxmlError, ValueError) as error:
        raise RenderError("html_invalid", f"no text can be had: {type(error).__name__}") from None


def _inlined(html: str) -> str:
    try:
        return inline(html)
    except InlineError as error:
        raise RenderError("html_invalid", str(error)) from None


def _check_links(html: str) -> None:
    """For templates that the skeleton does not see: every link has a scheme that may be."""
    for node in etree.fromstring(html, etree.HTMLParser()).iter("a", "area", "img"):
        target = node.get("href") or node.get("src") or ""
        if ":" in target and not target.lower().startswith(URL_SCHEMES):
            raise RenderError("template_broken", "an expression in href or src lacks |url")


__all__ = ["MAX_BODY", "Parts", "Renderer"]
