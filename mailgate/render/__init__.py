"""Rendering: a letter becomes the bytes of a mail.

Owns jinja2, premailer, lxml and MIME. Never sends, never stores, never reads
the clock. The way of a letter: ``catalogue`` finds the template (``compiling`` made it
of its files), ``sandbox`` runs it, ``skeleton`` (or ``inline``) puts the styles in place,
``text`` makes the other half, ``mime`` writes the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailgate.render.catalogue import Catalogue, built_in_root
from mailgate.render.errors import Broken, Fault, RenderError, RenderKind

if TYPE_CHECKING:
    from mailgate.render.renderer import Parts, Renderer
    from mailgate.render.template import Template

__all__ = [
    "Broken",
    "Catalogue",
    "Fault",
    "Parts",
    "RenderError",
    "RenderKind",
    "Renderer",
    "Template",
    "built_in_root",
]


def __getattr__(name: str) -> Any:
    """The rest when asked for: who only checks data needs neither Jinja nor premailer."""
    if name == "Template":
        from mailgate.render.template import Template

        return Template
    if name in ("Parts", "Renderer"):
        from mailgate.render import renderer

        return getattr(renderer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
