"""What two JSON readers could understand differently is refused, with its place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.contract.strict_json import MAX_DEPTH, MAX_DIGITS, MAX_NAMES, parse


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
