"""Which key of the configuration an environment variable sets, and to what.

Owns the reading of ``MAILGATE_SECTION__KEY``. Pure: the environment is passed in,
files that it names are read by ``config.load``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mailgate.config.fields import NAME, ROW, Place, keys, place, walk
from mailgate.config.shape import Config

PREFIX = "MAILGATE_"
_FILE = "_FILE"

#: Variables that are no keys: the first names the file, the next two belong to
#: ``failpoints``, the last two to programs that publish (``mailgate.client``).
_OTHERS = frozenset(PREFIX + name for name in ("CONFIG", "TEST", "FAILPOINTS", "URL", "PRODUCER"))

#: What container platforms set by themselves for a service called "mailgate".
_SERVICE_LINK = re.compile(
    r"MAILGATE_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable: the key it sets, or ``path`` None and the rule that it breaks.

    ``is_file``: the value stands in the file that ``raw`` names.
    """

    name: str
    path: tuple[str, ...] | None
    raw: str
    value: Any = None
    is_file: bool = False
    rule: str = ""


def settings(environ: Mapping[str, str], tree: Mapping[str, Any]) -> Iterator[Setting]:
    """The settings in ``environ``; ``tree`` is the file, for names that are known there."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in _OTHERS:
            said = name.removeprefix(PREFIX)
            raw = environ[name]
            if (found := _find(said, tree)) is not None:
                path, where = found
                yield Setting(name, path, raw, _value(raw, where))
            elif (found := _file(said, tree)) is not None:
                yield Setting(name, found[0], raw, is_file=True)
            elif not ("__" not in name and _SERVICE_LINK.fullmatch(name)):
                yield Setting(name, None, raw, rule=_unknown(name))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


def _find(said: str, tree: Mapping[str, Any]) -> tuple[tuple[str, ...], Place] | None:
    path: tuple[str, ...] = ()
    table: Any = tree
    for part in said.lower().split("__"):
        above = place(path)
        if above is None or not part:
            return None
        if above.section is None and above.named is not None:
            part = _chosen(part, table)
        path = (*path, part)
        table = table.get(part, {}) if isinstance(table, dict) else {}
    where = place(path)
    return (path, where) if where is not None else None


def _chosen(part: str, table: Any) -> str:
    """A name as the file spells it: shells allow no '-' and no '.' in a variable's name."""
    names = [n for n in table if re.sub(r"[-.]", "_", n) == part] if isinstance(table, dict) else []
    return names[0] if len(names) == 1 and part not in table else part


def _file(said: str, tree: Mapping[str, Any]) -> tuple[tuple[str, ...], Place] | None:
    found = _find(said.removesuffix(_FILE), tree) if said.endswith(_FILE) else None
    return found if found is not None and found[1].text else None


def _value(raw: str, where: Place) -> Any:
    """``raw`` as a TOML value where it is one; where a text belongs, only in quotes."""
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    if list(parsed) != ["value"] or (where.text and not isinstance(parsed["value"], str)):
        return raw
    return parsed["value"]


def _unknown(name: str) -> str:
    known = [PREFIX + "__".join(path).upper() for path, _ in walk() if ROW not in path]
    parts = name.removeprefix(PREFIX).split("__")
    if len(parts) > 2 and (above := place((parts[0].lower(),))) and above.named is not None:
        # Compare with the operator's own name in place.
        known = [key.replace(f"__{NAME}__", f"__{parts[1]}__") for key in known]
    close = nearest(name, known)
    if close is not None:
        return f"sets no known key; did you mean {close}?"
    return f"sets no known key; the sections are: {', '.join(keys(Config))}"
