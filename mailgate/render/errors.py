"""What can go wrong with a template, its data or a letter, as values and one exception.

Owns the words for faults of rendering. Never holds a value from a message: a
fault names the field and the rule, so that it can be logged and shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RenderKind = Literal[
    "template_missing",
    "template_broken",
    "data_invalid",
    "header_invalid",
    "html_invalid",
    "too_large",
    "budget",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule that a message's data breaks; ``field`` is a path such as ``data.user.name``."""

    field: str
    rule: str


class RenderError(Exception):
    """A letter cannot become bytes, and trying again will not help.

    ``kind`` says whose part it is: ``template_missing`` and ``template_broken``
    wait for an author; ``data_invalid``, ``header_invalid`` and ``html_invalid``
    are the producer's; ``too_large`` and ``budget`` are our own limits.
    """

    def __init__(self, kind: RenderKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

    @property
    def held(self) -> bool:
        """Whether mending the template can still send this message."""
        return self.kind in ("template_missing", "template_broken")


@dataclass(frozen=True, slots=True)
class Broken:
    """A template that did not load; the others serve. ``error`` is for its author."""

    name: str
    error: str


class TemplateFault(Exception):
    """A template breaks a rule; the message names the file and the rule."""
