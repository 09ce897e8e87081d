"""What is wrong with a configuration, in sentences that name the key.

Owns the faults, and the translation of the validator's errors into them: what a
value is, and what it must be. Never reads a source and never repeats a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import ValidationError

from mailgate.config import urls
from mailgate.config.environment import nearest
from mailgate.config.fields import allowed, keys, place
from mailgate.config.shape import Config


class ConfigFault(NamedTuple):
    """One thing that is wrong: the key as in TOML, the rule as a sentence, where it was said."""

    key: str
    rule: str
    source: str

    def __str__(self) -> str:
        said = f"{self.key} {self.rule}" if self.key else self.rule
        return f"{said} [{self.source}]"


class ConfigError(ValueError):
    """The configuration cannot be used; ``faults`` holds everything that is wrong with it."""

    def __init__(self, faults: Sequence[ConfigFault]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def dotted(path: Sequence[str]) -> str:
    """A key as TOML writes it: a part with dots of its own, such as a domain, in quotes."""
    return ".".join(f'"{part}"' if "." in part else part for part in path)


@dataclass(slots=True)
class Draft:
    """What was said so far, key by key, and what was wrong with it."""

    tree: dict[str, Any] = field(default_factory=dict)
    sources: dict[tuple[str, ...], str] = field(default_factory=dict)
    faults: list[ConfigFault] = field(default_factory=list)
    file: str = "defaults"

    def source(self, path: Sequence[str]) -> str:
        """Where the value at ``path`` was said; the longest known beginning decides."""
        for end in range(len(path), 0, -1):
            if tuple(path[:end]) in self.sources:
                return self.sources[tuple(path[:end])]
        return self.file

    def blame(self, path: Sequence[str], rule: str, source: str | None = None) -> None:
        fault = ConfigFault(dotted(path), rule, source or self.source(path))
        if fault not in self.faults:
            self.faults.append(fault)


def validated(draft: Draft) -> Config | None:
    """The config, or None with the faults of every section in the draft.

    The validator asks a section's own rules only once its keys are right, and those
    of the whole only once all sections are. So what was wrong in one round is left
    out for the next: three depths, three rounds.
    """
    left_out: set[tuple[str, ...]] = set()
    for depth in range(3):
        try:
            config = Config.model_validate(draft.tree)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                if depth == 0 or found["type"] == "section_faults":
                    left_out.add(_blame(draft, found, left_out))
                _leave_out(draft.tree, found)
        else:
            return None if depth else config
    return None


def _blame(draft: Draft, found: Any, left_out: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """Turn one error of the validator into faults; returns the place that is at fault."""
    loc = _place_of(found)
    where = place(loc)
    must = allowed(where) if where else "something else"
    if found["type"] == "section_faults":
        # A rule that speaks of a key which is wrong already says nothing new.
        gone = {path[len(loc)] for path in left_out if loc and path[: len(loc)] == loc != path}
        for key, rule in found["ctx"]["faults"]:
            path = (*loc, *key.split("."))
            words = set(re.findall(r"\w+", f"{key} {rule}"))
            if path not in left_out and not gone & words:
                draft.blame(path, rule)
    elif found["type"] == "missing" and dotted(loc) in {fault.key for fault in draft.faults}:
        pass  # What stood there is a fault by itself.
    elif found["type"] == "missing":
        draft.blame(loc, f"is required: {must}")
    elif found["type"] == "extra_forbidden":
        draft.blame(loc, f"is not a known key{_known(loc)}")
    elif found["type"] == "value_error" and {"[key]", "unsigned", "inbox"} & set(found["loc"]):
        draft.blame(loc, str(found["ctx"]["error"]))
    elif "[key]" in found["loc"]:
        draft.blame(loc, "is not a good name: a-z, 0-9, '-' and '_', at most 63, a-z or 0-9 first")
    else:
        draft.blame(loc, f"{_is(loc, found)}; it must be {must}")
    return loc


def _place_of(found: Any) -> tuple[str, ...]:
    return tuple(str(part) for part in found["loc"] if part != "[key]")


def _is(loc: tuple[str, ...], found: Any) -> str:
    """What is wrong with a value; a secret is not repeated."""
    value = found["input"]
    if isinstance(value, dict):
        return "is a table"
    if isinstance(value, list):
        return "is a list"
    shown = str(value).lower() if isinstance(value, bool) else repr(urls.mask(str(value)))
    shown = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else shown
    why = ""
    if found["type"] == "value_error" and loc[-1] in ("from", "envelope_from", "redirect_to"):
        why = f" ({str(found['ctx']['error']).rstrip('.')})"
    return f"is {shown}{why}"


def _known(loc: tuple[str, ...]) -> str:
    above = place(loc[:-1])
    section = above.section if above is not None else None
    if section is None:
        return ""
    known = list(keys(section))
    close = nearest(loc[-1], known)
    hint = f"; did you mean '{close}'? The" if close else "; the"
    return f"{hint} keys here are: {', '.join(known)}"


#: Stands for a relay or a host that is at fault while the rest is looked at.
_PLACEHOLDER = "left-out.invalid"


def _leave_out(tree: dict[str, Any], found: Any) -> None:
    path = _place_of(found)
    table: Any = tree
    for above, part in enumerate(path[:-1]):
        if isinstance(table.get(part), list):
            path = path[: above + 1]  # A list goes as a whole.
            break
        table = table.get(part)
        if not isinstance(table, dict):
            return
    if found["type"] == "section_faults" and path[:1] == ("relays",):
        table[path[-1]] = {"host": _PLACEHOLDER}
    elif found["type"] == "missing" and path[-1] == "host":
        table["host"] = _PLACEHOLDER
    elif path:
        table.pop(path[-1], None)
