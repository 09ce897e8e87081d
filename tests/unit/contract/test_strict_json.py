"""What two JSON readers could understand differently is refused, with its place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailgate.contract.strict_json import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_NAMES,
    MAX_VALUES,
    at_once,
    parse,
)
from mailgate.model import plain


def faults(body: bytes) -> list[str]:
    return [str(fault) for _, fault in parse(body)[1]]


def test_plain_json_is_read_as_it_is() -> None:
    document, found = parse('{"a": [1, 2.5, "ü", null, true], "b": {"c": "\\u00e9"}}'.encode())
    assert document == {"a": [1, 2.5, "ü", None, True], "b": {"c": "é"}}
    assert found == []


def test_a_byte_order_mark_of_utf8_is_ignored() -> None:
    assert parse(b'\xef\xbb\xbf{"a": 1}') == ({"a": 1}, [])


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_utf16_and_utf32_are_refused_by_name(codec: str) -> None:
    assert "UTF-16 or UTF-32" in faults('{"to": "ann@example.com"}'.encode(codec))[0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is not JSON"),
        (b"not json", "is not JSON"),
        (b'{"a": 1}x', "is not JSON: Extra data (line 1, column 9)"),
        (b"{'a': 1}", "is not JSON"),
        (b'{"a": 1,}', "is not JSON"),
        (b'{"a": "\n"}', "is not JSON: Invalid control character (line 1, column 8)"),
        (b'{"a": "\xff"}', "is not UTF-8 (at byte 7)"),
        (b'{"a": "\xed\xa0\x80"}', "is not UTF-8"),  # a surrogate encoded as if it were one
        (b'{"a": "\xc0\x80"}', "is not UTF-8"),  # overlong NUL
        (b'{"a": {"b": 1, "b": 2}}', "a.b: is given more than once in one object"),
        (b'{"a": [NaN]}', "a[0]: is NaN, which JSON does not have"),
        (b'{"a": -Infinity}', "a: is Infinity, which JSON does not have"),
        (b'{"a": 1e400}', "a: is a number too large to hold"),
        (b'{"a": "\\u0000"}', "a: contains NUL"),
        (b'{"\\u0000": 1}', '["\\u0000"]: has a name that contains NUL'),
        (b'{"a": "\\ud83d"}', "a: contains half of a surrogate pair"),
        (b'{"a": "\\udc00\\ud83d"}', "a: contains half of a surrogate pair"),
    ],
)
def test_unsound_documents_are_refused_with_the_place(body: bytes, said: str) -> None:
    assert faults(body)[0].startswith(said)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse(b'{"a": "\\ud83d\\ude00"}') == ({"a": "😀"}, [])


def test_an_escaped_backslash_before_u0000_is_text() -> None:
    assert parse(b'{"a": "\\\\u0000"}') == ({"a": "\\u0000"}, [])


def test_all_flaws_are_named_at_once() -> None:
    assert len(faults(b'{"a": NaN, "b": 1e999, "c": "\\ud800", "d": 1, "d": 2}')) == 4


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5000, 1_000_000])
def test_deep_nesting_is_refused_and_no_recursion_error_escapes(opening: bytes, depth: int) -> None:
    closing = b"]" if opening == b"[" else b"}"
    for body in (opening * depth + b"1" + closing * depth, opening * depth):
        found = faults(body)
        assert any(w in found[0] for w in ("nested deeper", "is not JSON", "more than"))
    complete = opening * (MAX_DEPTH + 1) + b"1" + closing * (MAX_DEPTH + 1)
    assert faults(complete) == [f"is nested deeper than {MAX_DEPTH} levels"]


def test_nesting_up_to_the_cap_is_read() -> None:
    assert faults(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) == []
    assert faults(b"[" + b"[]," * 1000 + b"[]]") == []


def test_huge_integers_are_refused_before_they_are_converted() -> None:
    assert faults(b'{"a": ' + b"9" * MAX_DIGITS + b"}") == []
    assert faults(b'{"a": ' + b"9" * 5_000_000 + b"}") == ["a: is a number with too many digits"]


def test_an_object_with_far_too_many_names_is_refused() -> None:
    body = json.dumps({str(i): i for i in range(MAX_NAMES + 1)}).encode()
    assert faults(body) == [f"has an object with more than {MAX_NAMES} names"]


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_raise(body: bytes) -> None:
    parse(body)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_json, st.booleans())
def test_whatever_sound_json_says_is_read_unchanged(value: object, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse(body) == (value, [])


# --- the quick reader says the same or nothing -----------------------------------------

_texts = st.text(st.sampled_from('ab"\\/\n\t{}[]:,0é😀\x7f'), max_size=6)
_documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)
#: Bytes in which JSON is made and broken.
_words = r"""{ } [ ] : , " \ \" \\ "a" "a": "b":1 "\u0061": \u0000 \ud83d \ude00 0 1e400 . NaN é"""
_odd = [b" ", b"\n", b"9" * MAX_DIGITS, b"\xff", b"\xef\xbb\xbf"]
_pieces = st.sampled_from([*_words.encode().split(), *_odd])


def agreed(body: bytes) -> bool:
    """Whether the quick reader read it; and if so, as the strict one did, type for type."""
    quick = at_once(body)
    if quick is None:
        return False
    document, found = parse(body)
    assert found == []
    assert repr(quick[0]) == repr(document)
    assert quick[1] == plain.canonical(document)
    return True


@given(_documents, st.booleans(), st.sampled_from([None, 0, 1]))
def test_what_is_sound_is_read_at_once(document: object, ascii_: bool, indent: int | None) -> None:
    assert agreed(json.dumps(document, ensure_ascii=ascii_, indent=indent).encode())


@settings(max_examples=400)
@given(_documents, st.lists(st.tuples(st.integers(0, 200), _pieces), min_size=1, max_size=3))
def test_what_is_broken_is_not_taken_for_sound(
    document: object, wounds: list[tuple[int, bytes]]
) -> None:
    body = json.dumps(document, ensure_ascii=False).encode()
    for at, piece in wounds:
        body = body[: at % (len(body) + 1)] + piece + body[at % (len(body) + 1) :]
    agreed(body)


@settings(max_examples=400)
@given(st.lists(_pieces, max_size=12))
def test_pieces_of_json_in_any_order(pieces: list[bytes]) -> None:
    agreed(b"".join(pieces))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"a\\"": 1, "a\\"": 2}',
        b'{"\\\\": "\\\\", "\\\\": "\\""}',
        b'[{"a": "", "a": "\\\\\\""}]',
        b'{"a": ' + b"1" * (MAX_DIGITS + 1) + b"}",
        b'{"a": -' + b"1" * MAX_DIGITS + b"}",
        b'{"a": "\\u0000"}',
        b'{"a": 1e400}',
        b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
        b"{" + b",".join(b'"%d":0' % n for n in range(MAX_NAMES + 1)) + b"}",
        b"[" + b"0," * MAX_VALUES + b"0]",
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_needs_a_closer_look_is_not_read_at_once(body: bytes) -> None:
    assert at_once(body) is None
