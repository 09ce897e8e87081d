"""The theme: typed tokens for style sheets, and who the mail is from by default.

Owns the reading of ``_theme/*.json``. A token is checked for what it says it
is, because style sheets are the one place where no escaping helps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mailgate.render.errors import TemplateFault

_KINDS = {
    "color": re.compile(r"#(?:[0-9a-fA-F]{3}){1,2}"),
    "font": re.compile(r"[A-Za-z0-9 ,'-]+"),
    "size": re.compile(r"\d+(?:\.\d+)?(?:px|em|%)?"),
}
_KEY = re.compile(r"[a-z][a-z0-9_]*")

#: What a template's schema means by ``{"$ref": "mailgate:product"}``.
PRODUCT_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 120},
        "url": {"type": "string", "pattern": "^https?://", "maxLength": 2000},
        "address": {"type": "string", "maxLength": 300},
    },
}


@dataclass(frozen=True, slots=True)
class Theme:
    """``tokens`` go into style sheets; ``product`` is the sender's name, site and address."""

    tokens: Mapping[str, Mapping[str, Markup]]
    product: Mapping[str, str]
    source: str


def read_theme(name: str, source: str, base: Theme | None = None) -> Theme:
    """Read a theme's JSON; what it leaves out is as in ``base``.

    Raises ``TemplateFault`` for a token that is not of its kind.
    """
    try:
        given = json.loads(source)
    except ValueError as error:
        raise TemplateFault(f"{name}: not JSON: {error}") from None
    if not isinstance(given, dict) or set(given) - {*_KINDS, "product"}:
        raise TemplateFault(f"{name}: holds color, font, size and product, and nothing else")
    tokens: dict[str, dict[str, Markup]] = {}
    for kind, pattern in _KINDS.items():
        group = given.get(kind, {})
        if not isinstance(group, dict):
            raise TemplateFault(f"{name}: {kind} is not an object")
        for key, value in group.items():
            if not (_KEY.fullmatch(key) and isinstance(value, str) and pattern.fullmatch(value)):
                raise TemplateFault(f"{name}: {kind}.{key} is not a {kind}")
        tokens[kind] = {k: Markup(v) for k, v in group.items()}  # noqa: S704 # checked above
    product = given.get("product", {})
    if not isinstance(product, dict) or not all(isinstance(v, str) for v in product.values()):
        raise TemplateFault(f"{name}: product holds text only")
    if set(product) - {"name", "url", "address"}:
        raise TemplateFault(f"{name}: product has name, url and address")
    if base is None:
        return Theme(tokens, product, source)
    return Theme(
        {kind: {**base.tokens[kind], **group} for kind, group in tokens.items()},
        {**base.product, **product},
        f"{base.source}\0{source}",
    )
