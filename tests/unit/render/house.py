"""The built-in templates and one renderer over them, read once for all tests of a process."""

from __future__ import annotations

from mailgate.render import Catalogue, Renderer, built_in_root

BUILT_IN = Catalogue.load([built_in_root()])
RENDERER = Renderer(BUILT_IN)
