"""Documents that stay JSON while they change, and small inputs that become large ones.

Owns the changes of a document's tree, led by the contract's own schema and by examples, and
the growth of one of its values beyond every limit of intake. Bytes that are changed blindly
are hardly ever JSON again, and what is no JSON never gets past the first door.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

#: Of a large document only so many values are looked at.
_LOOKED_AT = 300
#: Where a value was taken out, so that its text can be put in by itself.
_GAP = "here-was-a-value"
#: The longest document that a value grows to; above the largest that intake looks at.
LARGEST = 17 * 2**20
#: So many addresses are told apart; there may be a thousand.
_NUMBERED = 3000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, and by what name: that of its list where it has none."""

    holder: Any
    key: Any
    name: str

    @property
    def value(self) -> Any:
        return self.holder[self.key]

    def put(self, value: Any) -> None:
        self.holder[self.key] = value


def places(document: Any) -> list[Place]:
    """The values of a document, itself first, those beside each other before those below."""
    found = [Place([document], 0, "")]
    for place in found:
        value = place.value
        if isinstance(value, dict):
            found += [Place(value, key, key) for key in value]
        elif isinstance(value, list):
            found += [Place(value, n, place.name) for n in range(len(value))]
        if len(found) > _LOOKED_AT:
            break
    return found[:_LOOKED_AT]


@dataclass
class Changes:
    """What is known of good documents, and one change at a time."""

    schemas: Sequence[Mapping[str, Any]]
    odd: Sequence[Any]
    #: Good values by name, out of good documents.
    good: dict[str, list[Any]] = field(default_factory=dict)
    #: The names in an object, by the object's own.
    names: dict[str, list[str]] = field(default_factory=dict)
    examples: list[Any] = field(default_factory=list)

    def learn(self, document: Any) -> None:
        self.examples.append(document)
        for place in places(document):
            values = self.good.setdefault(place.name, [])
            if len(values) < 60:
                values.append(place.value)

    def learn_schemas(self) -> None:
        for schema in self.schemas:
            for name, holder in _objects(schema, schema, ""):
                known = self.names.setdefault(name, [])
                known += [each for each in holder["properties"] if each not in known]

    def changed(self, document: Any, dice: Random) -> Any:
        """The document with one to five changes; it is a copy."""
        if dice.random() < 0.15:  # most of what a campaign keeps is broken somewhere
            document = dice.choice(self.examples)
        document = _copy(document)
        for _ in range(dice.choice((1, 1, 1, 2, 3, 5))):
            document = self._once(document, dice)
        return document

    def grafted(self, document: Any, other: Any, dice: Random) -> Any:
        """The document with one value of the other's, by its name where there is one."""
        document = _copy(document)
        give = dice.choice(places(other))
        if not give.name or dice.random() < 0.3:
            dice.choice(places(document)[1:] or places(document)).put(_copy(give.value))
            return document
        holders = [p.value for p in places(document) if isinstance(p.value, dict)]
        if holders:
            dice.choice([holders[0], *holders])[give.name] = _copy(give.value)
        return document

    def _once(self, document: Any, dice: Random) -> Any:
        found = places(document)
        place = dice.choice(found[1:] or found)
        value = place.value
        match dice.randrange(12):
            case 0 | 1:
                place.put(self._good(place.name, dice))
            case 2:
                place.put(_copy(dice.choice(self.odd)))
            case 3 | 4 if isinstance(value, str):
                place.put(_spliced(value, dice, self.odd))
            case 3 if type(value) in (int, float):
                steps = (value + 1, -value, value * 10, value / 3, 10**130)
                place.put(dice.choice(steps))
            case 5:
                del place.holder[place.key]
            case 6 | 7 | 4:
                self._more(found, dice)
            case 8 if isinstance(value, list) and value:
                value.insert(dice.randrange(len(value) + 1), _copy(dice.choice(value)))
                if dice.random() < 0.3:
                    dice.shuffle(value)
            case 8 if isinstance(place.holder, dict):
                name = dice.choice(self.names.get("", [place.key]))
                place.holder[name] = place.holder.pop(place.key)
            case 9:
                other = dice.choice(found[1:] or found)
                other_value = _copy(other.value)
                other.put(_copy(value))
                if place.key in place.holder or isinstance(place.holder, list):
                    place.put(other_value)
            case 10:
                place.put(self._edge(place.name, dice))
            case 11:
                place.put([value] if dice.random() < 0.5 else {place.name: value})
            case _:
                place.put(self._good(place.name, dice))
        top: Any = found[0].holder
        return top[0] if top else {}

    def _more(self, found: Sequence[Place], dice: Random) -> None:
        """One name more in some object, mostly one that belongs there, and its good value."""
        holders = [p for p in found if isinstance(p.value, dict)]
        if not holders:
            return
        holder = dice.choice([holders[0], *holders])
        fitting = self.names.get(holder.name)
        if fitting and dice.random() < 0.9:
            name = dice.choice(fitting)
        else:
            name = dice.choice(list(self.good))
        value = self._good(name, dice) if dice.random() < 0.8 else _copy(dice.choice(self.odd))
        holder.value[name] = value

    def _good(self, name: str, dice: Random) -> Any:
        known = self.good.get(name)
        if known and dice.random() < 0.8:
            return _copy(dice.choice(known))
        return self._edge(name, dice)

    def _edge(self, name: str, dice: Random) -> Any:
        """A value at, or one beyond, what the schema says of a name."""
        schema = dice.choice(self.schemas)
        said = next(
            (h["properties"][name] for _, h in _known(schema) if name in h["properties"]), None
        )
        if said is None:
            return _copy(dice.choice(self.odd))
        return _generated(said, schema, dice, 0)


_memory: dict[int, list[tuple[str, Mapping[str, Any]]]] = {}


def _known(schema: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return _memory.setdefault(id(schema), list(_objects(schema, schema, "")))


def _objects(
    schema: Mapping[str, Any], root: Mapping[str, Any], name: str, depth: int = 0
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each object of a schema that has names of its own, by the name that it stands under."""
    schema = _resolved(schema, root)
    if depth > 6:
        return
    if "properties" in schema:
        yield name, schema
        for each, below in schema["properties"].items():
            yield from _objects(below, root, each, depth + 1)
    for one in schema.get("anyOf", ()):
        if "required" not in one or "properties" in one:
            yield from _objects(one, root, name, depth + 1)
    if isinstance(schema.get("items"), dict):
        yield from _objects(schema["items"], root, name, depth + 1)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        found: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema


def _generated(schema: Mapping[str, Any], root: Mapping[str, Any], dice: Random, depth: int) -> Any:
    schema = _resolved(schema, root)
    if "anyOf" in schema:
        return _generated(dice.choice(schema["anyOf"]), root, dice, depth)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return dice.choice(schema["enum"])
    match schema.get("type"):
        case "string":
            most = min(schema.get("maxLength", 300), 2000)
            sizes = (schema.get("minLength", 0), 1, 8, most, most + 1)
            return dice.choice("aZ0-é ") * dice.choice(sizes)
        case "integer" | "number":
            least, most = schema.get("minimum", 0), schema.get("maximum", 2**31)
            return dice.choice((least, least - 1, 1, most, most + 1))
        case "boolean":
            return dice.random() < 0.5
        case "array":
            most = min(schema.get("maxItems", 4), 60)
            many = dice.choice((0, 1, 2, 2, most + 1)) if depth < 2 else 1
            one = _generated(schema.get("items", {}), root, dice, depth + 1)
            return [_copy(one) for _ in range(many)]
        case "object" if depth < 4:
            known = schema.get("properties", {})
            wanted = {n for n in known if n in schema.get("required", ()) or dice.random() < 0.3}
            return {n: _generated(known[n], root, dice, depth + 1) for n in known if n in wanted}
    return None


def _spliced(text: str, dice: Random, odd: Sequence[Any]) -> str:
    at = dice.randrange(len(text) + 1)
    upto = min(len(text), at + dice.choice((0, 0, 1, 4, 40)))
    words = (
        dice.choice(odd),
        chr(dice.choice((9, 13, 10, 44, 60, 64, 133, 0x2028))),
        text[at:upto] * 2,
    )
    word = dice.choice(words)
    return text[:at] + (word if isinstance(word, str) else str(word)[:40]) + text[upto:]


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_copy(below) for below in value]
    return value


# --- growth ----------------------------------------------------------------------------------


def swollen(body: bytes, which: int, much: int) -> bytes:
    """The document with one value grown to the size that ``much`` (a byte) says.

    That is 256 bytes to 16 MiB, or, for one in sixteen, more than intake looks at. ``which``
    (a byte) chooses the value, and whether it grows in length or in depth.
    """
    size = LARGEST if much >= 240 else int(256 * 2 ** (much / 15))
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return (body or b" ") * (size // (len(body) or 1))
    found = places(document)
    place = found[which % len(found)]
    value = place.value
    text = json.dumps(value)
    place.put(_GAP)
    try:
        around = json.dumps(found[0].value)
    except RecursionError:
        return body
    before, _, behind = around.partition(json.dumps(_GAP))
    grown = _grown(value, text, which, max(1, size // max(1, len(text))), size)
    return (before + grown + behind).encode("utf-8", "surrogatepass")[:LARGEST]


def _grown(value: Any, text: str, which: int, times: int, size: int) -> str:
    if which >= 224:
        deep = min(size // 2, 100_000)
        return "[" * deep + text + "]" * deep
    if isinstance(value, str):
        inside = text[1:-1] or "x"
        if which % 5 == 0:  # what is base64 stays so only without its end
            inside = re.sub("[^A-Za-z0-9+/]", "", inside)[: len(inside) // 4 * 4] or "aGkx"
        return f'"{inside * max(1, size // len(inside))}"'
    if isinstance(value, list) and value:
        return "[" + ",".join(_alike(value, times)) + "]"
    if isinstance(value, dict) and value:
        pairs = [(json.dumps(k)[1:-1], json.dumps(v)) for k, v in value.items()]
        return (
            "{"
            + ",".join(f'"{name}{n or ""}":{below}' for n in range(times) for name, below in pairs)
            + "}"
        )
    if type(value) is int:
        return text * times
    return "[" + ",".join([text] * times) + "]"


def _alike(items: Sequence[Any], times: int) -> Iterator[str]:
    """The items again and again; whoever is addressed is another one each time, at first."""
    texts = [json.dumps(item) for item in items]
    if not any("@" in text for text in texts):
        numbered = 1
    else:
        numbered = min(times, _NUMBERED // len(texts) + 1)
    for n in range(numbered):
        yield from (text.replace("@", f"{n}@", 1) for text in texts)
    if times > numbered:
        yield ",".join([",".join(texts)] * (times - numbered))
