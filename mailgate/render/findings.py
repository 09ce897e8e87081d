"""Everything that is to be said about a template, in one list.

Owns the value that the command line and the studio show, and the order of the checks:
broken, then what its sources say, then each fixture in each language. Judges nothing
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mailgate.render import reading, review
from mailgate.render.errors import Broken, RenderError
from mailgate.render.renderer import Renderer
from mailgate.render.template import Template

#: How the errors of ``compiling`` begin: a file, and perhaps a line.
_PLACE = re.compile(r"(?P<file>[\w./-]+\.\w+)(?: line (?P<line>\d+))?: (?P<rule>.+)", re.DOTALL)
#: What Jinja adds to its messages, and the place says already.
_AGAIN = re.compile(r"\n\s*File \"[^\"]*\", line \d+\s*\Z")
#: Fixtures that say how mails usually are; others go to the edges on purpose.
_USUAL = ("minimal", "typical")


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark: ``line`` is 0 where a file as a whole is meant.

    An ``error`` stops a release: the template does not serve, or a mail would be wrong.
    A ``warning`` is for the author to judge.
    """

    file: str
    line: int
    rule: str
    level: Literal["error", "warning"]

    def __str__(self) -> str:
        return f"{self.file}{f' line {self.line}' if self.line else ''}: {self.rule}"


def findings(renderer: Renderer, name: str) -> list[Finding]:
    """What there is to say about a template; empty when it is good, or there is none."""
    found = renderer.catalogue.get(name)
    if found is None:
        return []
    if isinstance(found, Broken):
        return [broken(found)]
    out = dict.fromkeys(_of_sources(found))
    out.update(dict.fromkeys(_of_mails(renderer, found)))
    return list(out)


def broken(found: Broken) -> Finding:
    """Why a template does not serve, with the place where it says one."""
    error = _AGAIN.sub("", found.error)
    place = _PLACE.fullmatch(error)
    if place is None:
        return Finding(found.name, 0, error, "error")
    return Finding(place["file"], int(place["line"] or 0), place["rule"], "error")


def _of_sources(found: Template) -> Iterator[Finding]:
    for file, line, rule in review.remarks(found):
        yield Finding(file, line, rule, "error" if "without alt" in rule else "warning")
    for fixture in _USUAL:
        if fixture not in found.fixtures:
            file = f"{found.name}/fixtures/{fixture}.json"
            yield Finding(file, 0, "there is none: what is not tried is not known", "warning")


def _of_mails(renderer: Renderer, found: Template) -> Iterator[Finding]:
    """Each fixture in each language: as filled, and as rendered in full."""
    pale: set[str] = set()
    sources = {name: review.sources_of(variant) for name, variant in found.variants.items()}
    for fixture, data in found.fixtures.items():
        for locale in found.locales:
            file = f"{found.name}/{locale}.html"
            try:
                differ = renderer.prove(found.name, data, locale)
                parts = renderer.preview(found.name, data, locale)
            except RenderError as error:
                yield Finding(file, 0, f"with {fixture}: {error.message}", "error")
                continue
            for what in differ:
                yield Finding(file, 0, f"with {fixture}: the fast way differs in {what}", "error")
            if clipped := reading.cut_off(parts.html):
                usual = fixture in _USUAL
                yield Finding(
                    f"{found.name}/fixtures/{fixture}.json",
                    0,
                    f"in {locale}: {clipped}",
                    "error" if usual else "warning",
                )
            if fixture not in _USUAL:
                continue
            for place, line, rule in reading.too_pale(parts.html, sources[locale], file):
                if rule not in pale:
                    pale.add(rule)
                    yield Finding(place, line, rule, "warning")
            for rule in reading.plain_text(parts.html, parts.text):
                text = f"{found.name}/{locale}.{'txt' if found.variant(locale).text else 'html'}"
                yield Finding(text, 0, f"with {fixture}: {rule}", "warning")
