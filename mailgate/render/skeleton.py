"""Inline a mail's shape once, fill it with each message's values.

Owns the cache of inlined skeletons and the proof that a filled skeleton is
what premailer makes of the full rendering. Never decides what a template
means: Jinja has resolved loops, conditions and macros before a skeleton is
looked up, and every printed value stands aside, replaced by a token.

On a miss each token is classified by where it landed in the parsed document.
In text, in a plain attribute, in a link or in a comment its value can change
neither parsing nor selectors nor CSS, so it is *deferred*. Anywhere else it is
*sensitive*: substituted, and its value becomes part of the key. What can not
be split (a token that premailer dropped or doubled) is rendered in full.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, NamedTuple

from lxml import etree
from markupsafe import escape

from mailgate.render import encode, text
from mailgate.render.errors import RenderError
from mailgate.render.filters import Url
from mailgate.render.inline import inline
from mailgate.render.printing import TOKEN_PREFIX

_TOKEN = re.compile(TOKEN_PREFIX + r"(\d{5,})z")

TEXT, ATTRIBUTE, LINK, COMMENT = range(4)

#: Neither HTML nor quoted-printable changes it, and it fits on one line.
_SIMPLE = re.compile(r"[ !#-%'-;?-~]{0,75}\Z")

#: Attributes that premailer reads or writes, or that libxml2 treats apart.
_SENSITIVE_ATTRIBUTES = frozenset(
    {"class", "id", "style", "media", "type", "rel", "name", "action", "http-equiv", "charset"}
    | {"data-premailer", "width", "height", "align", "valign", "bgcolor", "hidden", "role"}
    | {"data-text", "srcset", "formaction", "background", "poster", "cite", "xlink:href"}
)
_LINK_ATTRIBUTES = frozenset({"href", "src"})
#: Elements whose text is raw, or whose blank text a parser may move or drop.
_SENSITIVE_PARENTS = frozenset(
    {"html", "head", "body", "table", "thead", "tbody", "tfoot", "tr", "colgroup", "select"}
    | {"style", "script", "textarea", "pre", "listing", "xmp", "plaintext", "noscript", "iframe"}
    | {"noframes", "noembed", "template", "svg", "math"}
)
_SELECTED = re.compile(r"\[\s*([A-Za-z_][\w-]*)")
#: A value that the text part would show otherwise than as it is.
_UNEVEN = re.compile(r"[\n\t\f\xad\u034f\u200b\u200c\ufeff]|  |\x01 | \x01")


#: Takes some of a mail's values, in an order of its own.
_Pick = Callable[[Sequence[str]], tuple[str, ...]]


class OpenLink(NamedTuple):
    """A link of the text part whose form depends on its values: what it says, and where to.

    Of each the pieces and, between them, the indices of the values.
    """

    words: tuple[str, ...]
    word_slots: tuple[int, ...]
    target: tuple[str, ...]
    target_slots: tuple[int, ...]

    @property
    def some(self) -> int:
        """One of its values: there is one, or ``_settle`` had written it."""
        return (*self.word_slots, *self.target_slots)[0]

    def written(self, values: Sequence[str]) -> str:
        return text.link(
            _inserted(self.words, self.word_slots, values),
            _inserted(self.target, self.target_slots, values),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A skeleton cut at its tokens.

    ``pieces`` has one string more than ``slots``; ``wire`` is the same, ready
    encoded for the wire; each slot is (index of the value, place). ``text_wire`` is the text
    part between its ``text_leaves``; None where a link of it stands in another.
    """

    slots: tuple[tuple[int, int], ...]
    pieces: tuple[str, ...]
    wire: tuple[str, ...]
    text_slots: tuple[int, ...]
    text_pieces: tuple[str, ...]
    text_wire: tuple[str, ...] | None
    text_leaves: tuple[int | OpenLink, ...] = ()
    weight: int = 0
    # What follows from these: the values in the order of the slots, where each stands, and
    # the slots whose value is never taken as it is without a look.
    _picked: _Pick = field(init=False, repr=False, compare=False)
    _at: dict[int, int] = field(init=False, repr=False, compare=False)
    _looked_at: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _text_values: _Pick = field(init=False, repr=False, compare=False)
    _text_picked: _Pick = field(init=False, repr=False, compare=False)
    _text_at: dict[int, list[int]] = field(init=False, repr=False, compare=False)
    _text_links: tuple[tuple[int, OpenLink], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        follows = object.__setattr__
        order = [i for i, _ in self.slots]
        follows(self, "_picked", _pick(order))
        follows(self, "_at", {i: at for at, i in enumerate(order)})
        looked_at = tuple(at for at, (_, place) in enumerate(self.slots) if place >= LINK)
        follows(self, "_looked_at", looked_at)
        follows(self, "_text_values", _pick(self.text_slots))
        leaves = list(enumerate(self.text_leaves))
        links = tuple((at, leaf) for at, leaf in leaves if isinstance(leaf, OpenLink))
        alone = [leaf if isinstance(leaf, int) else leaf.some for _, leaf in leaves]
        follows(self, "_text_picked", _pick(alone))
        # What stands in a table within a table is told twice.
        text_at: dict[int, list[int]] = {}
        for at, leaf in leaves:
            if isinstance(leaf, int):
                text_at.setdefault(leaf, []).append(at)
        follows(self, "_text_at", text_at)
        follows(self, "_text_links", links)

    def html(self, values: Sequence[str]) -> str:
        """The document as premailer would write it."""
        return _filled(self.pieces, [_leaf(values[i], place) for i, place in self.slots])

    def html_wire(self, values: Sequence[str], odd: Sequence[int]) -> str:
        """The document in quoted-printable; ``odd`` is what ``odd_ones`` finds in them."""
        leaves = list(self._picked(values))
        for at in self._looked_at:
            i, place = self.slots[at]
            if place == COMMENT or type(values[i]) is not Url:
                leaves[at] = encode.piece(_leaf(values[i], place))
        for i in odd:
            found = self._at.get(i)
            if found is not None:
                leaves[found] = encode.piece(_leaf(values[i], self.slots[found][1]))
        return _filled(self.wire, leaves)

    def text(self, values: Sequence[str]) -> str:
        """The derived text part."""
        picked = self._text_values(values)
        if _uneven(picked):
            return text.finish(text.derive(self.html(values)))
        return text.finish(_filled(self.text_pieces, picked))

    def derived_wire(self, values: Sequence[str], odd: Sequence[int]) -> str:
        """The derived text part in quoted-printable."""
        if self.text_wire is None or _uneven(self._text_values(values)):
            return encode.quoted_printable(self.text(values))
        leaves = list(self._text_picked(values))
        for at, link in self._text_links:
            leaves[at] = encode.piece(link.written(values))
        for i in odd:
            for at in self._text_at.get(i, ()):
                leaves[at] = encode.piece(values[i])
        return _filled(self.text_wire, leaves)


@dataclass(frozen=True, slots=True)
class Sensitive:
    """The skeleton's shape depends on these values: look again with them in place."""

    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Whole:
    """The skeleton cannot be split; every message of this shape is rendered in full."""

    reason: str


Entry = Plan | Sensitive | Whole


def odd_ones(values: Sequence[str]) -> list[int]:
    """The values that HTML or quoted-printable writes otherwise than as they are, by index."""
    return [i for i, found in enumerate(map(_SIMPLE.match, values)) if found is None]


def _pick(order: Sequence[int]) -> _Pick:
    """What takes these of the values, in this order."""
    if len(order) > 1:
        return itemgetter(*order)
    # Of one it would give that one and not a tuple, and none it does not know.
    return lambda values: tuple([values[i] for i in order])


def _filled(pieces: Sequence[str], leaves: Sequence[str]) -> str:
    out = [""] * (2 * len(leaves) + 1)
    out[::2] = pieces
    out[1::2] = leaves
    return "".join(out)


def _uneven(values: Sequence[str]) -> bool:
    """Whether the text part would show one of them otherwise than as it is."""
    # Looks by C at all of them at once, before the rule itself, which looks at each character.
    # Of what the rule names only the joiner is printable, and blanks in a row or at an end
    # are two bars.
    text = "|".join(["", *values, ""])
    plain = text.isascii() or "\u034f" not in text
    if plain and text.isprintable() and "||" not in text.replace(" ", "|"):
        return False
    return _UNEVEN.search("\x01" + "\x01".join(values) + "\x01") is not None


#: The pieces around a value that stands alone.
_ALONE = ("", "")


def _inserted(pieces: tuple[str, ...], slots: tuple[int, ...], values: Sequence[str]) -> str:
    if pieces == _ALONE:
        return values[slots[0]]
    return _filled(pieces, [values[i] for i in slots])


def _leaf(value: str, place: int) -> str:
    """A value as libxml2 serialises it where it stands."""
    if place == COMMENT:
        return str(escape(value))
    if place == LINK and type(value) is not Url:
        # The source check reads top to bottom; this sees the document.
        raise RenderError("template_broken", "an expression in href or src lacks |url")
    if "&" in value:
        value = value.replace("&", "&amp;")
    if "<" in value:
        value = value.replace("<", "&lt;")
    if ">" in value:
        value = value.replace(">", "&gt;")
    if place == ATTRIBUTE and '"' in value:
        value = value.replace('"', "&quot;")
    return value


def compile_skeleton(skeleton: str, count: int) -> Entry:
    """Classify ``count`` tokens, inline the skeleton and cut it at them."""
    places, sensitive = _classify(skeleton)
    if sensitive:
        return Sensitive(tuple(sorted(sensitive)))
    parts = _TOKEN.split(inline(skeleton))
    order = [int(number) for number in parts[1::2]]
    expected = {int(number) for number in _TOKEN.findall(skeleton)}
    if len(order) != len(set(order)) or set(order) != expected or set(places) != expected:
        return Whole("a value is lost or doubled when styles are inlined")
    if count != len(expected):
        return Whole("a value is printed into what is not shown, or more than once")
    pieces = tuple(parts[::2])
    derived = text.derive("".join(parts_of(parts)))
    settled = _settle(derived)
    text_pieces, text_slots = _cut(settled)
    words, leaves = _cut_at_links(settled)
    # What no other shape shares: the slots, a reference to each piece, and open links.
    weight = 280 * len(order) + 1800
    weight += sum(600 + sum(map(len, (*x.words, *x.target))) for x in leaves if type(x) is OpenLink)
    return Plan(
        slots=tuple((number, places[number]) for number in order),
        pieces=pieces,
        wire=encode.pieces(pieces),
        text_slots=text_slots,
        text_pieces=text_pieces,
        text_wire=None if words is None else encode.pieces(words),
        text_leaves=leaves,
        weight=weight,
    )


def _cut(words: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """A text cut at its tokens: the pieces, and the numbers between them."""
    parts = _TOKEN.split(words)
    return tuple(parts[::2]), tuple(map(int, parts[1::2]))


def _cut_at_links(settled: str) -> tuple[tuple[str, ...] | None, tuple[int | OpenLink, ...]]:
    """A text cut at its open links and at the tokens outside of them.

    No pieces where one stands in another: what the inner one becomes is the outer one's words.
    """
    pieces: list[str] = [""]
    leaves: list[int | OpenLink] = []
    parts = text.LINK.split(settled)
    for at, part in enumerate(parts):
        if at % 3 == 0:
            if any(mark in part for mark in (text.OPEN, text.MIDDLE, text.CLOSE)):
                return None, ()
            more, slots = _cut(part)
            pieces[-1] += more[0]
            pieces += more[1:]
            leaves += slots
        elif at % 3 == 1:
            leaves.append(OpenLink(*_cut(part), *_cut(parts[at + 1])))
            pieces.append("")
    return tuple(pieces), tuple(leaves)


def parts_of(parts: Sequence[str]) -> list[str]:
    """Undo a split at the tokens."""
    out = list(parts)
    out[1::2] = [f"{TOKEN_PREFIX}{number}z" for number in parts[1::2]]
    return out


def _settle(derived: str) -> str:
    """Write the links whose form no value can change; leave the others marked."""

    def settle(found: re.Match[str]) -> str:
        if TOKEN_PREFIX not in found[0]:
            return text.finish(found[0])
        said = _TOKEN.sub("", found[1]).strip(" \n")
        # A target has no blanks, so words with one never say the same.
        if " " not in said and (said != found[1].strip(" \n") or text.may_be_target(said)):
            return found[0]
        return text.finish(found[0])

    # A link within one that was settled: again, until each that is left holds a value.
    while (settled := text.LINK.sub(settle, derived)) != derived:
        derived = settled
    return derived


def _classify(skeleton: str) -> tuple[dict[int, int], set[int]]:
    places: dict[int, int] = {}
    sensitive: set[int] = set()
    selected = set(_SELECTED.findall(skeleton)) | _SENSITIVE_ATTRIBUTES

    def note(content: str | None, place: int | None) -> None:
        if not content or TOKEN_PREFIX not in content:
            return
        for found in _TOKEN.findall(content):
            number = int(found)
            if place is None or places.get(number, place) != place:
                sensitive.add(number)
            else:
                places[number] = place

    tree = etree.fromstring(skeleton.strip(), etree.HTMLParser()) if skeleton.strip() else None
    for node in () if tree is None else tree.iter():
        tag = node.tag
        parent = node.getparent()
        outer = parent.tag if parent is not None else "html"
        note(node.tail, None if outer in _SENSITIVE_PARENTS else TEXT)
        if tag is etree.Comment:
            note(node.text, COMMENT)
            continue
        if not isinstance(tag, str):
            note(node.text, None)
            continue
        note(tag, None)
        note(node.text, None if tag in _SENSITIVE_PARENTS else TEXT)
        for name, value in node.attrib.items():
            note(str(name), None)
            if name in selected:
                note(str(value), None)
            else:
                note(str(value), LINK if name in _LINK_ATTRIBUTES else ATTRIBUTE)
    return places, sensitive


class Cache:
    """Entries by shape, least recently used out first, bounded by bytes and number.

    Shapes of one template are mostly made of the same pieces, which are kept once: a
    thousand of them cost little more than a hundred. ``bytes`` counts pieces once, too.
    Safe under threads; two that miss together both compile, to the same end.
    """

    def __init__(self, max_bytes: int, max_entries: int = 16_384) -> None:
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._kept: OrderedDict[Any, tuple[Entry, int]] = OrderedDict()
        # Each piece with the number of places that hold it.
        self._pieces: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Any) -> Entry | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return None
            self._kept.move_to_end(key)
            self.hits += 1
            return found[0]

    def put(self, key: Any, entry: Entry, weight: int) -> None:
        """Keep ``entry``; ``weight`` is what its key costs."""
        if weight + sum(map(len, _strings(key, entry))) > self._max_bytes:
            return
        with self._lock:
            if key in self._kept:
                self._drop(key)
            if isinstance(key, tuple):
                key = tuple(self._keep(part) if isinstance(part, str) else part for part in key)
                weight += 8 * len(key)
            if isinstance(entry, Plan):
                entry = self._shared(entry)
                weight += entry.weight
            weight += 200
            self.bytes += weight
            self._kept[key] = (entry, weight)
            while self.bytes > self._max_bytes or len(self._kept) > self._max_entries:
                self._drop(next(iter(self._kept)))
                self.evicted += 1

    def _shared(self, plan: Plan) -> Plan:
        def keep(pieces: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(self._keep(piece) for piece in pieces)

        return replace(
            plan,
            pieces=keep(plan.pieces),
            wire=keep(plan.wire),
            text_pieces=keep(plan.text_pieces),
            text_wire=None if plan.text_wire is None else keep(plan.text_wire),
        )

    def _keep(self, piece: str) -> str:
        kept, places = self._pieces.get(piece, (piece, 0))
        self._pieces[piece] = (kept, places + 1)
        if not places:
            self.bytes += _size(kept)
        return kept

    def _drop(self, key: Any) -> None:
        entry, weight = self._kept.pop(key)
        self.bytes -= weight
        for piece in _strings(key, entry):
            kept, places = self._pieces.pop(piece)
            if places > 1:
                self._pieces[piece] = (kept, places - 1)
            else:
                self.bytes -= _size(kept)


def _strings(key: Any, entry: Entry) -> Iterator[str]:
    """Every text that an entry and its key consist of."""
    if isinstance(key, tuple):
        yield from (part for part in key if isinstance(part, str))
    if isinstance(entry, Plan):
        yield from entry.pieces
        yield from entry.wire
        yield from entry.text_pieces
        yield from entry.text_wire or ()


def _size(piece: str) -> int:
    """Bytes of a text and of what keeps it, about."""
    return len(piece) * (1 if piece.isascii() else 2) + 200


def substitute(chunks: Sequence[str], values: Sequence[str], indices: Sequence[int]) -> str:
    """The skeleton with the sensitive values in place, escaped as Jinja escapes them."""
    at = {str(i).zfill(5): i for i in indices}

    def value(found: re.Match[str]) -> str:
        index = at.get(found[1])
        return found[0] if index is None else str(escape(values[index]))

    return _TOKEN.sub(value, "".join(chunks))
