"""The mix of traffic over all built-in templates that the hit rate is stated for.

Owns the habits of the services that send it. Never renders. Named "eight services":

- Eight services publish; each sends six of the templates, the first ones more often (one
  over the rank). Every template is sent by somebody, most by several.
- A service has a habit: for each template it gives the optional variables that its code
  gives, each with an even chance, also within the items of lists. One block comes
  and goes: it is as usual in seven messages of ten.
- The list that a mail is about (items, posts, events) has 1 to 20 entries, evenly; the
  other lists (adjustments, figures, steps, features) are as long as the habit says.
- Of the messages 70% are in English, 20% in Chinese, 10% in Arabic.
- In one message of twenty every free text is hostile: tags, quotes, line ends, templates,
  half words of other scripts, long words.
- No two messages are alike: names, titles, texts, numbers and links differ.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailgate.render import Catalogue, Template

SERVICES, KINDS = 8, 6
LOCALES = {"en": 0.7, "zh-CN": 0.2, "ar": 0.1}
FIXTURES = {"en": "typical", "zh-CN": "cjk", "ar": "rtl"}
HOSTILE_SHARE, GOING, GOING_SHARE, LONGEST = 0.05, 1, 0.3, 20
_HOSTILE = (
    "<b>bold</b></td></tr></table>",
    "\"quoted\" & 'single' &amp; &#65;",
    "--> <!-- <![endif]-->",
    "</style><script>alert(1)</script>",
    "{{ 7*7 }} {% raw %}",
    "שלום 你好 😀 e\u0301",
    "x" * 60,
)
_LINES = ("one line\nand another", "a\r\nb", "above\n\nbelow")
_WORDS = ("harbour", "lantern", "quiet", "morning", "order", "window", "paper", "bright", "letter")

Path = tuple[str, ...]

#: The lists that mails are about.
MAIN = {("items",), ("posts",), ("events",), ("fields",), ("facts",)}


@dataclass(frozen=True)
class Habit:
    """What a service's code gives of one template; ``going`` come and go."""

    given: frozenset[Path]
    going: tuple[Path, ...]
    length: int


@dataclass(frozen=True)
class Sent:
    """One message of the mix."""

    template: str
    locale: str
    data: dict[str, Any]


def optional_paths(schema: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    """Every variable that may be left out, as a path; a list's items add ``[]``."""
    required = schema.get("required", [])
    for name, rule in schema.get("properties", {}).items():
        if name not in required:
            yield (*at, name)
        if "items" in rule:
            yield from optional_paths(rule["items"], (*at, name, "[]"))
        elif "properties" in rule:
            yield from optional_paths(rule, (*at, name))


class Mix:
    """``messages`` of the eight services, the same ones for the same ``seed``."""

    def __init__(self, catalogue: Catalogue, seed: int = 1, *, coins: bool = False) -> None:
        """With ``coins`` nobody has a habit: each block of each item is drawn by itself."""
        self._random = random.Random(seed)
        self._coins = coins
        self._templates: dict[str, Template] = {}
        for name in catalogue.names():
            found = catalogue.get(name)
            assert isinstance(found, Template), found
            self._templates[name] = found
        names = list(self._templates)
        self._services = []
        for number in range(SERVICES):
            # Each template has its turn before chance fills the rest.
            sure = [names[i % len(names)] for i in range(number * 3, number * 3 + 3)]
            rest = self._random.sample([n for n in names if n not in sure], KINDS - len(sure))
            self._services.append([(name, self._habit(name)) for name in sure + rest])

    def _habit(self, name: str) -> Habit:
        paths = list(optional_paths(self._templates[name].schema))
        outer = [path for path in paths if len(path) == 1]
        return Habit(
            frozenset(path for path in paths if self._random.random() < 0.5),
            tuple(self._random.sample(outer, min(len(outer), GOING))),
            self._random.randint(1, 4),
        )

    def messages(self, count: int) -> Iterator[Sent]:
        chance = self._random
        weights = [1 / (rank + 1) for rank in range(KINDS)]
        for number in range(count):
            [(name, habit)] = chance.choices(chance.choice(self._services), weights)
            template = self._templates[name]
            others = {path for path in habit.going if chance.random() < GOING_SHARE}
            [locale] = chance.choices(list(LOCALES), list(LOCALES.values()))
            making = _Making(chance, habit.given ^ others, habit.length, number, self._coins)
            sample = template.fixtures[FIXTURES[locale]]
            full = template.fixtures["max"]
            data = making.object(template.schema, [sample, full], ())
            if not template.faults(data):
                yield Sent(name, locale, data)


class _Making:
    """One message's data, by its schema, from what fixtures show."""

    def __init__(
        self,
        chance: random.Random,
        habit: frozenset[Path],
        length: int,
        number: int,
        coins: bool,
    ) -> None:
        self._chance, self._habit, self._number, self._coins = chance, habit, number, coins
        self._length = length
        self._hostile = chance.random() < HOSTILE_SHARE
        self._count = 0

    def _gives(self, path: Path) -> bool:
        return self._chance.random() < 0.5 if self._coins else path in self._habit

    def object(self, schema: Mapping[str, Any], samples: Sequence[Any], at: Path) -> dict[str, Any]:
        out = {}
        for name, rule in schema["properties"].items():
            path = (*at, name)
            if name not in schema.get("required", []) and not self._gives(path):
                continue
            shown = [s[name] for s in samples if isinstance(s, dict) and name in s]
            if shown or "pattern" not in rule:
                out[name] = self._value(rule, shown, path)
        return out

    def _value(self, rule: Mapping[str, Any], shown: Sequence[Any], path: Path) -> Any:
        kind = rule.get("type")
        if "enum" in rule:
            return self._chance.choice(rule["enum"])
        if kind == "array":
            least = max(1, rule.get("minItems", 0))
            most = min(LONGEST, rule.get("maxItems", LONGEST))
            items = [item for one in shown for item in one]
            count = max(least, min(most, self._length))
            if path in MAIN or self._coins:
                count = self._chance.randint(least, most)
            return [self._item(rule["items"], items, (*path, "[]")) for _ in range(count)]
        if kind == "object":
            return self.object(rule, shown, path)
        if kind == "integer":
            return self._chance.randint(rule.get("minimum", 0), min(rule.get("maximum", 500), 500))
        if kind == "string" and not {"pattern", "format"} & set(rule) and path[-1] not in _FIGURES:
            return self._words(rule)
        if kind == "string" and rule.get("pattern", "").startswith("^https?"):
            return f"https://shop.example/{self._number}/{self._next()}?a=1&b={self._number}"
        return shown[0]

    def _item(self, rule: Mapping[str, Any], shown: Sequence[Any], path: Path) -> Any:
        if rule.get("type") == "object":
            return self.object(rule, [x for x in shown if isinstance(x, dict)], path)
        return self._value(rule, shown, path)

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _words(self, rule: Mapping[str, Any]) -> str:
        most = min(rule.get("maxLength", 80), 80)
        if self._hostile:
            # Only long texts may hold line ends.
            pool = _HOSTILE + (_LINES if rule.get("maxLength", 0) > 500 else ())
            return f"{self._chance.choice(pool)[: most - 6]} {self._number % 10_000}"[:most]
        words = " ".join(self._chance.choices(_WORDS, k=self._chance.randint(1, 6)))
        return f"{words.capitalize()} {self._number}-{self._next()}"[-most:].strip()


#: Text that has a form of its own which the schema leaves to the filters.
_FIGURES = frozenset({"amount", "total", "subtotal", "price"})
