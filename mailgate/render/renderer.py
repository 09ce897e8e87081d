"""The front of the room: a letter in, its bytes out.

Owns the choice between the filled skeleton and the full rendering, and the
checks that keep them equal, before the first use and by samples ever after. Never
touches the network or the disk, and the clock only to choose samples: equal letters
give equal bytes, on every machine that has the same templates.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lxml import etree

from mailgate.model.address import Address
from mailgate.model.message import Letter
from mailgate.render import encode, mime, skeleton, text
from mailgate.render.budget import joined
from mailgate.render.catalogue import Catalogue
from mailgate.render.dkim import Signer
from mailgate.render.errors import Broken, RenderError
from mailgate.render.filters import URL_SCHEMES
from mailgate.render.inline import MAX_HTML, InlineError, inline
from mailgate.render.printing import clean
from mailgate.render.proof import Proof, same_document
from mailgate.render.sandbox import produce
from mailgate.render.template import Template, Variant

#: A letter's own text or HTML (characters).
MAX_BODY = 2 * 2**20

_STYLE = re.compile(r"<style[\s>]", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_PREVIEW_SENDER = Address("sender@example.com", "Example")


@dataclass(frozen=True, slots=True)
class Parts:
    """A template with its data in place, before it becomes a mail."""

    subject: str
    html: str
    text: str


@dataclass(frozen=True, slots=True)
class Stats:
    """What a renderer has done since it was made, for metrics.

    ``fast`` letters filled a skeleton that was there, ``made`` ones had theirs made,
    ``full`` ones went through premailer whole; ``sampled`` of the fast ones were also
    rendered in full, and ``differing`` is how often the two were not the same, in a
    sample or when a skeleton was new (any is a bug: the log names the template).
    ``shapes`` and ``bytes`` are kept now.
    """

    fast: int
    made: int
    full: int
    sampled: int
    differing: int
    shapes: int
    bytes: int


class Renderer:
    """Renders letters by a catalogue. Safe to share between threads.

    ``signer`` has the last word on the bytes: none, and mails are not signed. ``clock``
    (seconds) says when a template is due to be sampled.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        signer: Signer | None = None,
        cache_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.catalogue = catalogue
        self._signer = signer
        self.cache = skeleton.Cache(cache_bytes)
        self._proof = Proof(clock)
        self._compiled = self._made = self._whole = self._filled = 0

    def adopt(self, catalogue: Catalogue) -> None:
        """Render by another catalogue from now on; what it shares with the old stays warm."""
        self.catalogue = catalogue
        self._proof.forget()

    def stats(self) -> Stats:
        """The counts so far, and what is kept."""
        return Stats(
            fast=self._filled,
            made=self._made,
            full=self._whole,
            sampled=self._proof.sampled,
            differing=self._proof.differing,
            shapes=len(self.cache),
            bytes=self.cache.bytes,
        )

    def render(self, letter: Letter) -> bytes:
        """The bytes of ``letter``. Raises ``RenderError``, and then always will."""
        body = self._own(letter) if letter.template is None else self._templated(letter)
        content = mime.build(letter, body)
        if self._signer is None:
            return content
        return self._signer.sign(letter.sender.domain, letter.date // 1000, content)

    def subject(self, letter: Letter) -> str:
        """The subject of ``letter`` alone. Raises ``RenderError``."""
        if letter.template is None or letter.subject is not None:
            return letter.subject or ""
        data = letter.data or {}
        found, variant = self._find(letter.template, letter.locale, data)
        url = letter.unsubscribe.url if letter.unsubscribe else None
        return found.subject(variant, found.context(data, variant, letter.sender, url))

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
        out = [] if same_document(plan.html(values), html) else ["the HTML"]
        if variant.text is None and plan.text(values) != _derived(html):
            out.append("the text")
        # What is sent is put together once more, from pieces that are encoded already.
        odd = skeleton.odd_ones(values)
        if not encode.says(plan.html_wire(values, odd), plan.html(values)):
            out.append("the HTML as it is sent")
        if variant.text is None and not encode.says(
            plan.derived_wire(values, odd), plan.text(values)
        ):
            out.append("the text as it is sent")
        return out

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
        compiled = self._compiled
        plan = self._plan(found, variant, context, values)
        if plan is None:
            self._whole += 1
        elif self._compiled != compiled:
            self._made += 1
        else:
            self._filled += 1
            if self._proof.wants_sample(variant.html):
                full = self._full(variant, context)
                if not self._proof.holds(variant.html, plan.html(values), full):
                    plan = None
        if plan is None:
            html = self._full(variant, context)
            wire = encode.quoted_printable(html)
            words = "" if variant.text else encode.quoted_printable(_derived(html))
        else:
            odd = skeleton.odd_ones(values)
            wire = plan.html_wire(values, odd)
            words = "" if variant.text else plan.derived_wire(values, odd)
        if variant.text is not None:
            words = encode.quoted_printable(self._authored(variant, context))
        if len(wire) + len(words) > found.manifest.max_bytes:
            raise RenderError("too_large", f"more than {found.manifest.max_bytes} bytes")
        return mime.Body(subject, words, wire)

    def _plan(
        self, found: Template, variant: Variant, context: Mapping[str, Any], values: list[str]
    ) -> skeleton.Plan | None:
        """The skeleton for this rendering; fills ``values``. ``None``: render in full."""
        if variant.capturing or not self._proof.trusts(variant.html):
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
        if isinstance(entry, skeleton.Plan) and self._proof.wants_shape():
            full = self._full(variant, context)
            if not self._proof.holds(variant.html, entry.html(values), full):
                entry = skeleton.Whole("the filled skeleton differs from the full rendering")
        own = weight + sum(len(values[i]) for i in indices) if indices else 0
        self.cache.put(key, entry, own)
        return entry

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


__all__ = ["MAX_BODY", "Parts", "Renderer", "Stats"]
