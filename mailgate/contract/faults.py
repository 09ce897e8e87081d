"""Faults as plain sentences: where, and which rule.

Owns the wording of every refusal of the contract. A rule never repeats a value,
since values are personal data; it may name fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Place = tuple[str | int, ...]

#: A message may have thousands of faults; a person reads the first ones.
MOST_FAULTS = 100

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_$@-]{1,64}")
_RULE = "rule"

#: The types of JSON by the names that pydantic gives to its errors.
_TYPES = {
    "string_type": "must be a string",
    "string_unicode": "must be Unicode text without lone surrogates",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "missing": "is required",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule: ``field`` is a path such as ``recipients[3].email``, empty for all."""

    field: str
    rule: str

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}" if self.field else self.rule


@dataclass(frozen=True, slots=True)
class RefusedRecipient:
    """One entry of ``recipients`` that is refused while the others are accepted."""

    index: int
    faults: tuple[Fault, ...]
    entry: object


def broken(rule: str) -> PydanticCustomError:
    """The exception with which a validator says which rule a value breaks."""
    return PydanticCustomError(_RULE, "{rule}", {"rule": rule})


def broken_at(faults: Iterable[tuple[Place, str]]) -> ValidationError:
    """Several broken rules of one value, each at its place below it."""
    lines: list[InitErrorDetails] = [
        {"type": broken(rule), "loc": place, "input": None} for place, rule in faults
    ]
    return ValidationError.from_exception_data("submission", lines, hide_input=True)


def path(place: Place) -> str:
    """``("to", 0, "email")`` → ``to[0].email``; odd keys are quoted and cut short."""
    out = ""
    for step in place:
        if isinstance(step, int):
            out += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            out += f".{step}" if out else step
        else:
            out += f"[{json.dumps(step[:64])}]"
    return out


def faults_of(
    error: ValidationError,
    raw: Mapping[str, Any],
    written: Mapping[str, str],
    known: Iterable[str],
    patterns: Mapping[str, str],
) -> list[tuple[Place, Fault]]:
    """Translate pydantic's errors, in terms of what the producer wrote.

    ``written`` maps canonical field names to the spelling that was used,
    ``known`` are the fields of the contract, ``patterns`` the sentence for each
    regular expression of the model.
    """
    found: list[tuple[Place, Fault]] = []
    for line in error.errors(include_url=False, include_input=False):
        place = _as_written(line["loc"], raw)
        rule = _sentence(line["type"], line.get("ctx") or {}, place, known, patterns)
        shown = place
        if place and isinstance(place[0], str):
            shown = (written.get(place[0], place[0]), *place[1:])
        fault = Fault(path(shown), rule)
        if (place, fault) not in found[-8:]:
            found.append((place, fault))
    return found


def shortened(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """The first faults, and how many more there are."""
    if len(faults) <= MOST_FAULTS:
        return tuple(faults)
    more = len(faults) - MOST_FAULTS
    return (*faults[:MOST_FAULTS], Fault("", f"there are {more} more faults"))


def _as_written(place: tuple[int | str, ...], raw: Any) -> Place:
    """Cut a place where the producer wrote a plain value: ``to[0].email`` of a string is ``to``.

    Steps of pydantic's own that are no key of the document fall away with it;
    the last step may name what is missing.
    """
    out: list[str | int] = []
    for step in place:
        if isinstance(raw, dict) and isinstance(step, str):
            out.append(step)
            if step not in raw:
                break
            raw = raw[step]
        elif isinstance(raw, list) and isinstance(step, int) and step < len(raw):
            out.append(step)
            raw = raw[step]
        else:
            break
    return tuple(out)


def _sentence(
    kind: str,
    context: Mapping[str, Any],
    place: Place,
    known: Iterable[str],
    patterns: Mapping[str, str],
) -> str:
    if kind == _RULE:
        return str(context["rule"])
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == "extra_forbidden":
        # Suggest only at the top: elsewhere the few names are in the manual.
        near = (
            get_close_matches(str(place[-1])[:64], list(known), 1, 0.7) if len(place) == 1 else []
        )
        return "is not a field of the contract" + (f"; did you mean {near[0]}?" if near else "")
    if kind == "string_too_long":
        return f"must not be longer than {context['max_length']} characters"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_pattern_mismatch":
        return patterns[context["pattern"]]
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = context.get("ge", context.get("le"))
        return f"must be {'at least' if 'ge' in context else 'at most'} {bound}"
    return "is not valid"
