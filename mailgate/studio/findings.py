"""What is to be said about a template beside its picture.

Owns the seam to the checks of ``render`` and the order in which findings are
shown. Never judges by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailgate.render.errors import RenderError
from mailgate.render.renderer import Renderer
from mailgate.render.template import Broken, Template

#: How the errors of ``render.catalogue`` begin: a file, and perhaps a line.
_PLACE = re.compile(r"(?P<file>[\w./-]+\.\w+)(?: line (?P<line>\d+))?: (?P<rule>.+)", re.DOTALL)
#: What Jinja adds to its messages, and the place says already.
_AGAIN = re.compile(r"\n\s*File \"[^\"]*\", line \d+\s*\Z")


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark: ``line`` is 0 where a file as a whole is meant, ``level`` error or warning."""

    file: str
    line: int
    rule: str
    level: str

    def __str__(self) -> str:
        return f"{self.file}{f' line {self.line}' if self.line else ''}: {self.rule}"


def findings(renderer: Renderer, name: str) -> list[Finding]:
    """Everything that is known to be wrong with a template; empty when it is good."""
    found = renderer.catalogue.get(name)
    if found is None:
        return []
    if isinstance(found, Broken):
        return [broken(found)]
    return _differences(renderer, found)


def broken(found: Broken) -> Finding:
    """Why a template does not serve, with the place where it says one."""
    error = _AGAIN.sub("", found.error)
    place = _PLACE.fullmatch(error)
    if place is None:
        return Finding(found.name, 0, error, "error")
    return Finding(place["file"], int(place["line"] or 0), place["rule"], "error")


def _differences(renderer: Renderer, found: Template) -> list[Finding]:
    """Each fixture in each language, filled into its skeleton and rendered in full."""
    out: list[Finding] = []
    for fixture, data in found.fixtures.items():
        for locale in found.locales:
            file = f"{found.name}/{locale}.html"
            try:
                differ = renderer.prove(found.name, data, locale)
            except RenderError as error:
                out.append(Finding(file, 0, f"with {fixture}: {error.message}", "error"))
            else:
                out += [
                    Finding(file, 0, f"with {fixture}: the fast way differs in {what}", "error")
                    for what in differ
                ]
    return out
