"""One template: its manifest, its schema, its words in each language.

Owns what a template is and how its parts come out of Jinja. Reads no file
(``files.py`` does) and knows nothing of premailer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import jinja2
import jsonschema_rs

from mailgate.model.address import Address
from mailgate.render.budget import joined
from mailgate.render.errors import Fault, RenderError
from mailgate.render.sandbox import produce
from mailgate.render.theme import Theme

_RIGHT_TO_LEFT = frozenset({"ar", "dv", "fa", "he", "ks", "ps", "sd", "ug", "ur", "yi"})
_SUBJECT_CHARACTERS = 500
#: Hostile data can break as many rules as it has values.
_FAULTS = 100
_VALUES = 2000


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``template.toml`` says."""

    name: str
    version: int
    description: str
    category: str
    default_locale: str
    text: Literal["authored", "derived"]
    theme: str
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Variant:
    """A template in one language; ``capturing`` ones cannot use the skeleton."""

    locale: str
    subject: jinja2.Template
    html: jinja2.Template
    text: jinja2.Template | None
    capturing: bool

    @property
    def direction(self) -> Literal["ltr", "rtl"]:
        return "rtl" if self.locale.partition("-")[0] in _RIGHT_TO_LEFT else "ltr"


@dataclass(frozen=True, slots=True)
class Template:
    """A template that serves.

    ``hash`` covers every source that its output depends on: its own files, the
    layout, components and style sheets that it uses, and the theme.
    """

    manifest: Manifest
    theme: Theme
    schema: Mapping[str, Any]
    validator: jsonschema_rs.Draft202012Validator
    variants: Mapping[str, Variant]
    fixtures: Mapping[str, Mapping[str, Any]]
    hash: str

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def locales(self) -> list[str]:
        return sorted(self.variants)

    def variant(self, locale: str | None) -> Variant:
        """The language to use: ``pt-BR``, then ``pt``, then the template's default.

        A bare ``zh`` also takes the first of ``zh-CN``, ``zh-TW``.

        Resolved for the template as a whole, so that a subject and its body
        are always in the same language.
        """
        if not locale:
            return self.variants[self.manifest.default_locale]
        wanted = locale.replace("_", "-").lower()
        while wanted:
            for name, variant in self.variants.items():
                if name.lower() == wanted:
                    return variant
            wanted = wanted.rpartition("-")[0]
        bare = locale.lower()
        for name, variant in sorted(self.variants.items()):
            if name.lower().startswith(f"{bare}-"):
                return variant
        return self.variants[self.manifest.default_locale]

    def faults(self, data: Mapping[str, Any]) -> list[Fault]:
        """The rules of the schema that ``data`` breaks, the first hundred; empty when it fits."""
        plain = data if type(data) is dict else dict(data)
        if self.validator.is_valid(plain):
            return []
        if _many(plain):
            # The library makes all errors before it gives the first; of few there are few.
            try:
                self.validator.validate(plain)
            except jsonschema_rs.ValidationError as error:
                return _faults(error)[:_FAULTS]
        found = (f for error in self.validator.iter_errors(plain) for f in _faults(error))
        return list(islice(found, _FAULTS))

    def context(
        self,
        data: Mapping[str, Any],
        variant: Variant,
        sender: Address,
        unsubscribe: str | None,
    ) -> dict[str, Any]:
        """The variables of one rendering: the data and what the gateway adds."""
        product = {"name": sender.name or sender.domain, "url": "", "address": ""}
        product.update(self.theme.product)
        product.update(data.get("product") or {})
        return {
            **data,
            "product": product,
            "sender": {"name": sender.name, "email": sender.email},
            "unsubscribe": unsubscribe or "",
            "locale": variant.locale,
            "dir": variant.direction,
        }

    def subject(self, variant: Variant, context: Mapping[str, Any]) -> str:
        """The subject, one line. Raises ``RenderError`` when the data makes it more."""
        text = joined(produce(variant.subject, context, None), 20 * _SUBJECT_CHARACTERS).strip()
        if "\n" in text:
            raise RenderError("data_invalid", "the subject would have more than one line")
        if len(text) > _SUBJECT_CHARACTERS:
            raise RenderError("too_large", f"the subject exceeds {_SUBJECT_CHARACTERS} characters")
        return text.replace("\t", " ")


def _many(data: Mapping[str, Any]) -> bool:
    """Whether data has so many values that it could break far more rules than anyone reads."""
    left, waiting = _VALUES, [data]
    while waiting and left > 0:
        value: Any = waiting.pop()
        if isinstance(value, dict | list):
            left -= len(value)
            waiting += islice(value.values() if isinstance(value, dict) else value, _VALUES)
    return left <= 0


def _faults(error: Any) -> list[Fault]:
    kind = error.kind
    path = [str(part) for part in error.instance_path]
    rule = kind.name
    if rule == "required":
        return [Fault(_path([*path, kind.property]), "missing variable")]
    if rule == "additionalProperties":
        return [Fault(_path([*path, str(name)]), "unknown variable") for name in kind.unexpected]
    return [Fault(_path(path), _RULES.get(rule, lambda k: "does not fit the schema")(kind))]


def _path(parts: Sequence[str]) -> str:
    return ".".join(["data", *parts])


_RULES: dict[str, Any] = {
    "type": lambda k: f"wrong type: must be {_words(k.types)}",
    "enum": lambda k: "is none of the values that the schema lists",
    "const": lambda k: "is not the value that the schema names",
    "maxLength": lambda k: f"is longer than {k.limit} characters",
    "minLength": lambda k: f"is shorter than {k.limit} characters",
    "maxItems": lambda k: f"has more than {k.limit} items",
    "minItems": lambda k: f"has fewer than {k.limit} items",
    "maxProperties": lambda k: f"has more than {k.limit} keys",
    "maximum": lambda k: f"is more than {k.limit}",
    "minimum": lambda k: f"is less than {k.limit}",
    "pattern": lambda k: "does not match the pattern of the schema",
    "format": lambda k: f"is not of the format {k.format}",
    "uniqueItems": lambda k: "has an item twice",
}


def _words(types: Any) -> str:
    return types if isinstance(types, str) else " or ".join(str(t) for t in types)
