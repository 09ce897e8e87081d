"""What each key of the configuration may hold, in words.

Owns the walk from a dotted key (``relays.main.port``) to its field in
``config.shape`` and the sentence about the values that are allowed there; the
manual and every error message say the same thing. Never reads a value.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union
from zoneinfo import ZoneInfo

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mailgate.config import digests, shape, terms
from mailgate.config.crontab import Crontab
from mailgate.config.metrics import Listen
from mailgate.model.address import Address

#: What is written in place of a name that the operator chooses.
NAME = "NAME"
#: What is written for one table of a list.
ROW = "0"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dotted key leads: the type there, and its field when it is one."""

    annotation: Any
    field: FieldInfo | None

    @property
    def section(self) -> type[BaseModel] | None:
        """The section at this place, if it is a table of fixed keys."""
        return _model(self.annotation)

    @property
    def named(self) -> Any | None:
        """The type of the members, if this is a table of names that operators choose."""
        return _member(self.annotation)

    @property
    def items(self) -> Any | None:
        """The type of the members, if this is a list."""
        return _item(self.annotation)

    @property
    def text(self) -> bool:
        """Whether a plain string is what belongs here."""
        return any(option is str for option in _options(self.annotation))


def key_of(name: str, field: FieldInfo) -> str:
    """The key as it is written in TOML: the alias where there is one (``from``)."""
    return field.alias or name


def keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a section in the order of the manual."""
    return {key_of(name, field): field for name, field in model.model_fields.items()}


def place(path: Sequence[str | int], model: type[BaseModel] = shape.Config) -> Place | None:
    """Where ``path`` leads, or None when there is no such key."""
    found = Place(model, None)
    for part in path:
        if found.section is not None:
            field = keys(found.section).get(str(part))
            if field is None:
                return None
            found = Place(field.annotation, field)
        elif found.named is not None:
            found = Place(found.named, None)
        elif found.items is not None:
            found = Place(found.items, None)
        else:
            return None
    return found


def walk(
    model: type[BaseModel] = shape.Config, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every key that holds a value, section by section, a section's own keys first.

    Names that the operator chooses appear as ``NAME``, rows of a list as ``ROW``.
    """
    tables: list[tuple[tuple[str, ...], type[BaseModel]]] = []
    for key, field in keys(model).items():
        path = (*prefix, key)
        inner, member = _model(field.annotation), _member(field.annotation)
        if inner is not None:
            tables.append((path, inner))
        elif (table := _model(member)) is not None:
            tables.append(((*path, NAME), table))
        else:
            yield (path if member is None else (*path, NAME)), field
            if (row := _model(_item(field.annotation))) is not None:
                tables.append(((*path, ROW), row))
    for path, table in tables:
        yield from walk(table, path)


def allowed(where: Place) -> str:
    """The values that are allowed at a place, as the end of "it must be …"."""
    if where.section is not None or where.named is not None:
        return "a table"
    bounds = where.field.metadata if where.field is not None else ()
    said = [
        _say(kind, (*bounds, *inner))
        for kind, inner in _laid_bare(where.annotation)
        if kind is not type(None)
    ]
    return " or ".join(said)


def _say(kind: Any, bounds: Sequence[Any]) -> str:
    if typing.get_origin(kind) is tuple:
        return "a list of " + _members(typing.get_args(kind)[0])
    if typing.get_origin(kind) is Literal:
        return "one of " + _quoted(typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + _quoted([member.value for member in kind])
    if kind is float and any(getattr(b, "func", None) is terms.parse_duration for b in bounds):
        return "a duration such as '250ms', '30s', '4h' or '3d'" + _range(bounds, seconds=True)
    if kind is int:
        more = " or a rate such as '3/10m', which says the window too"
        return "a whole number" + _range(bounds) + more * (terms.OR_RATE in bounds)
    if kind is float:
        return "a number" + _range(bounds)
    if kind is str and (pattern := next((p for b in bounds if (p := _pattern(b))), None)):
        return _PATTERNS[pattern]
    if any(getattr(b, "func", None) is terms.parse_receivers for b in bounds):
        return "an address such as 'ann@example.com', or '*@example.com' for everyone there"
    if any(getattr(b, "func", None) is terms.parse_ip for b in bounds):
        return "an IP address such as '192.0.2.7' or '2001:db8::7'"
    return _WORDS[kind]


def _pattern(bound: Any) -> str | None:
    parts = bound.metadata if isinstance(bound, FieldInfo) else (bound,)
    return next((p for part in parts if (p := getattr(part, "pattern", None))), None)


#: A type that is missing here has no manual: the test of the manual finds it.
_WORDS: dict[Any, str] = {
    bool: "true or false",
    str: "a text",
    Any: "any value",
    Path: "a path",
    Crontab: "a text such as '0 10 * * sat'",
    ZoneInfo: "a time zone such as 'Europe/Paris'",
    Listen: "an address to listen on such as '127.0.0.1:9464'",
    terms.Rate: "a rate such as '14/s', '100/m', '20/h' or '14/s burst 20'",
    Address: "an address such as 'ann@example.com' or 'Ann Bell <ann@example.com>'",
}


_PATTERNS = {
    _pattern(typing.get_args(terms.Name)[1]): "a name of a-z, 0-9, '-' and '_' (at most 63)",
    _pattern(typing.get_args(terms.Host)[1]): "a host name or address",
    _pattern(typing.get_args(terms.QueueName)[1]): "a name of letters, digits, '.', '-' and '_'",
    _pattern(typing.get_args(digests.Variable)[1]): "a name of letters, digits and '_'",
    _pattern(typing.get_args(digests.Order)[1]): "'newest', 'oldest', or a field of the items, "
    "with '-' before it for downwards",
}


def _members(annotation: Any) -> str:
    kind = _options(annotation)[0]
    if _model(kind) is not None:
        return "tables"
    if typing.get_origin(kind) is Literal:
        return _quoted(typing.get_args(kind))
    return {str: "texts", Path: "paths"}.get(kind, "values")


def _quoted(values: Sequence[Any]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _range(bounds: Sequence[Any], *, seconds: bool = False) -> str:
    say = terms.format_duration if seconds else str
    low: Any = next((b.ge for b in bounds if isinstance(b, Ge)), None)
    above: Any = next((b.gt for b in bounds if isinstance(b, Gt)), None)
    high: Any = next((b.le for b in bounds if isinstance(b, Le)), None)
    if low is not None and high is not None:
        return f" from {say(low)} to {say(high)}"
    if above is not None:
        return f", more than {say(above) if above else 0}"
    if low:
        return f", at least {say(low)}"
    return f", at most {say(high)}" if high is not None else ""


def _laid_bare(annotation: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """The members of a union, each with what ``Annotated`` says about it."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return [(kind, (*parts[1:], *more)) for kind, more in _laid_bare(parts[0])]
    if origin in (Union, types.UnionType):
        return [found for part in parts for found in _laid_bare(part)]
    return [(annotation, ())]


def _options(annotation: Any) -> list[Any]:
    return [kind for kind, _ in _laid_bare(annotation)]


def _model(annotation: Any) -> type[BaseModel] | None:
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _member(annotation: Any) -> Any | None:
    for option in _options(annotation):
        if typing.get_origin(option) is dict:
            return typing.get_args(option)[1]
    return None


def _item(annotation: Any) -> Any | None:
    for option in _options(annotation):
        if typing.get_origin(option) is tuple:
            return typing.get_args(option)[0]
    return None
