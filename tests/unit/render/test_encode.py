"""Quoted-printable as a stranger reads it: quopri of the standard library."""

from __future__ import annotations

import base64
import quopri

from hypothesis import given
from hypothesis import strategies as st

from mailgate.render.encode import base64_lines, piece, pieces, quoted_printable

#: Text comes here with LF line ends only; were it not so, no bare CR gets through.
texts = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text(alphabet="ab =.\t\n\ré", max_size=300),
)


def check_lines(encoded: str) -> None:
    assert encoded.isascii()
    assert "\0" not in encoded
    assert encoded.replace("\r\n", "").find("\n") == -1
    assert encoded.replace("\r\n", "").find("\r") == -1
    for line in encoded.split("\r\n"):
        assert len(line) <= 76
        assert not line.endswith((" ", "\t"))


def lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decoded(encoded: str) -> str:
    return quopri.decodestring(encoded.encode().replace(b"\r\n", b"\n")).decode()


@given(texts)
def test_a_body_comes_back(text: str) -> None:
    encoded = quoted_printable(text)
    check_lines(encoded)
    text = lines(text)
    expected = text if text.endswith("\n") or not text else text + "\n"
    assert decoded(encoded) == expected


@given(st.lists(texts, min_size=1, max_size=6), st.lists(texts, min_size=5, max_size=5))
def test_pieces_encoded_once_take_any_value_between_them(
    static: list[str], values: list[str]
) -> None:
    encoded = pieces(static)
    whole, plain = encoded[0], lines(static[0])
    for number, part in enumerate(encoded[1:]):
        whole += piece(values[number]) + part
        plain += lines(values[number]) + lines(static[number + 1])
    check_lines(whole)
    assert decoded(whole).rstrip("\n") == plain.rstrip("\n")


@given(st.integers(60, 90), st.sampled_from(["x", "é", "=", " ", "\t", "😀"]))
def test_lines_at_the_edge_of_the_limit(length: int, char: str) -> None:
    for text in (char * length, "a" * length + char, "a" * length + char + "\n" + char):
        encoded = pieces([text, text, text])
        whole = encoded[0] + piece(text) + encoded[1] + piece(text) + encoded[2]
        check_lines(whole)
        assert decoded(whole).rstrip("\n") == (text * 5).rstrip("\n")


@given(st.binary(max_size=400))
def test_base64_comes_back_in_lines_of_76(content: bytes) -> None:
    encoded = base64_lines(content)
    assert base64.b64decode(encoded) == content
    assert all(len(line) <= 76 for line in encoded.split(b"\r\n"))
    assert encoded.endswith(b"\r\n") or not content
