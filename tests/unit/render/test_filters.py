"""What ``|url`` lets through, and the other filters at their edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.render.errors import RenderError
from mailgate.render.filters import URL_SCHEMES, Url, lines, paragraphs, url, urlencode


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("https://example.com/a?b=c&d=e#f", "https://example.com/a?b=c&d=e#f"),
        ("  https://example.com/ ", "https://example.com/"),
        ("HTTPS://Example.com/", "https://Example.com/"),
        ("https://example.com/ü x", "https://example.com/%C3%BC%20x"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://example.com/%zz%41", "https://example.com/%25zz%41"),
        ('https://example.com/"<x>\\^`{|}', "https://example.com/%22%3Cx%3E%5C%5E%60%7B%7C%7D"),
        ("https://[::1]:8443/", "https://[::1]:8443/"),
        ("mailto:ann@example.com?subject=Hi there", "mailto:ann@example.com?subject=Hi%20there"),
        ("tel:+4755000000", "tel:+4755000000"),
        ("cid:logo@example", "cid:logo@example"),
    ],
)
def test_a_link_is_written_in_safe_ascii(given: str, written: str) -> None:
    assert url(given) == written


@pytest.mark.parametrize(
    "given",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\nscript:alert(1)",
        "\x01javascript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "ftp://example.com",
        "//example.com/x",
        "/relative",
        "#top",
        "example.com",
        "",
        "https://",
        "https:///x",
        "mailto:",
        "https://exa\nmple.com",
        "https://example.com/\x7f",
        "https://example.com/\u0085",
        "https://example.com/\ud800",
        "https://-ü-" + "x" * 80 + ".example/",
        7,
        None,
        ["https://example.com"],
    ],
)
def test_what_is_no_link_of_a_mail_is_refused(given: object) -> None:
    with pytest.raises(RenderError) as raised:
        url(given)
    assert raised.value.kind == "data_invalid"
    assert "alert" not in str(raised.value)


@given(st.text())
def test_no_text_becomes_a_link_that_can_leave_its_attribute(text: str) -> None:
    for base in ("", "https://example.com/", "mailto:", "https://"):
        try:
            written = url(base + text)
        except RenderError:
            continue
        assert type(written) is Url
        assert written.isascii()
        assert written.isprintable()
        assert not set(written) & set(' "<>\\^`{|}')
        assert written.startswith(URL_SCHEMES)
        assert url(written) == written


@given(st.text())
def test_a_part_of_a_link_holds_no_syntax(text: str) -> None:
    assert not set(urlencode(text)) & set(" \"'<>&?#/:;=+@\\")


def test_paragraphs_are_parted_by_blank_lines() -> None:
    assert paragraphs(" a\r\nb\r\n \t\r\n\r\nc \n\n\n") == ["a\nb", "c"]
    assert paragraphs(" \n\n ") == []
    assert lines("a\r\nb\rc\n") == ["a", "b", "c", ""]
