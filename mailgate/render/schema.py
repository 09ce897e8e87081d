"""A template's JSON Schema, read and refused where it could not be checked in time.

Owns jsonschema-rs's settings and the rules for references. Its patterns run in
linear time; nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs

from mailgate.render.errors import TemplateFault
from mailgate.render.theme import PRODUCT_SCHEMA

#: What the gateway itself puts beside a message's data.
RESERVED = frozenset({"theme", "product", "sender", "unsubscribe", "locale", "dir"})
#: Schemas that one schema may come to when its references are written out.
MAX_WRITTEN_OUT = 10_000


def read_json(name: str, source: str) -> Any:
    """Raises ``TemplateFault`` that names the file."""
    try:
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        raise TemplateFault(f"{name}: not JSON: {error}") from None


def read_schema(
    own: Mapping[str, str],
) -> tuple[dict[str, Any], jsonschema_rs.Draft202012Validator]:
    """``context.schema.json`` and what checks data by it. Raises ``TemplateFault``."""
    name = "context.schema.json"
    if name not in own:
        raise TemplateFault(f"there is no {name}")
    schema = read_json(name, own[name])
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise TemplateFault(f"{name}: describes an object")
    if schema.get("additionalProperties") is not False:
        raise TemplateFault(f"{name}: says additionalProperties: false")
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        raise TemplateFault(f"{name}: lists properties")
    taken = sorted(set(properties) & (RESERVED - {"product"}))
    if taken:
        raise TemplateFault(f"{name}: {', '.join(taken)} is the gateway's own name")
    if "product" in properties and properties["product"] != {"$ref": "mailgate:product"}:
        raise TemplateFault(f'{name}: write product as {{"$ref": "mailgate:product"}}')
    _check_references(name, schema)
    try:
        registry = jsonschema_rs.Registry([("mailgate:product", PRODUCT_SCHEMA)])
        validator = jsonschema_rs.Draft202012Validator(
            schema,
            registry=registry,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),
            offline=True,
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise TemplateFault(f"{name}: {error}") from None
    return schema, validator


def _check_references(name: str, schema: Mapping[str, Any]) -> None:
    """Refuse references that double: 30 lines of them are 2**30 checks of one value.

    A schema may refer to itself (a tree of comments), but from one place only.
    """
    definitions = schema.get("$defs", {})
    if not isinstance(definitions, dict):
        raise TemplateFault(f"{name}: $defs is not an object")
    sizes: dict[str, int] = {}

    def size(part: Any, within: tuple[str, ...]) -> int:
        total = 1
        for target in _references(part):
            total += known(target, within)
            if total > MAX_WRITTEN_OUT:
                raise TemplateFault(f"{name}: its references come to too many schemas")
        return total

    def known(target: str, within: tuple[str, ...]) -> int:
        if target == "mailgate:product":
            return 1
        key = target.removeprefix("#/$defs/")
        if key == target or key not in definitions:
            raise TemplateFault(f"{name}: $ref {target} is none of #/$defs/…")
        if key in within:
            cycle = within[within.index(key) :]
            targets = {f"#/$defs/{k}" for k in cycle}
            back = sum(t in targets for k in cycle for t in _references(definitions[k]))
            if back > len(cycle):
                raise TemplateFault(f"{name}: {target} refers to itself more than once")
            return 1
        if key not in sizes:
            if len(within) > 50:
                raise TemplateFault(f"{name}: its references go too deep")
            sizes[key] = size(definitions[key], (*within, key))
        return sizes[key]

    size({k: v for k, v in schema.items() if k != "$defs"}, ())
    for key in definitions:
        known(f"#/$defs/{key}", ())


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("$dynamicRef", "$recursiveRef", "$dynamicAnchor"):
                raise TemplateFault(f"context.schema.json: {key} is not available")
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)
