"""One spelling of an address for the wire and the journal."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.model.address import Address, AddressError, wire_form


@pytest.mark.parametrize(
    ("written", "wire"),
    [
        ("ann@example.com", "ann@example.com"),
        ("Ann.Bell+tag@EXAMPLE.Com", "Ann.Bell+tag@example.com"),
        ("o'neil!#$%&*/=?^_`{|}~-@example.co.uk", "o'neil!#$%&*/=?^_`{|}~-@example.co.uk"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@BÜCHER.example", "ann@xn--bcher-kva.example"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("ann@例え.テスト", "ann@xn--r8jz45g.xn--zckzah"),
        ("jörg@example.com", "jörg@example.com"),
        # Composed and decomposed are one local part (RFC 6531 section 3.3 asks for NFC).
        ("jo\u0308rg@example.com", "jörg@example.com"),
        ("用户@例え.テスト", "用户@xn--r8jz45g.xn--zckzah"),
        ("a@b.example.test", "a@b.example.test"),
        ("x" * 64 + "@example.com", "x" * 64 + "@example.com"),
    ],
)
def test_what_is_written_has_one_wire_form(written: str, wire: str) -> None:
    assert wire_form(written) == wire


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "ann",
        "ann@",
        "@example.com",
        "ann@localhost",
        "ann@example",
        "ann@example.com.",
        "ann@.example.com",
        "ann@example..com",
        "ann@-example.com",
        "ann@example-.com",
        "ann@exa_mple.com",
        "ann@[127.0.0.1]",
        "ann@[IPv6:::1]",
        "ann@127.0.0.1",
        '"ann bell"@example.com',
        "ann bell@example.com",
        " ann@example.com",
        "ann@example.com ",
        "ann@example.com\n",
        "ann@example.com\r\nRCPT TO:<eve@example.com>",
        "ann@exam\rple.com",
        "ann\x00@example.com",
        "ann\x7f@example.com",
        "ann@example.com\u2028",
        "ann\u200b@example.com",
        "Ann <ann@example.com>",
        "<ann@example.com>",
        "ann@example.com, eve@example.com",
        "ann@example.com;eve@example.com",
        "ann(comment)@example.com",
        "ann@example.com(comment)",
        ".ann@example.com",
        "ann.@example.com",
        "an..n@example.com",
        "ann@eve@example.com",
        "x" * 65 + "@example.com",
        "ö" * 33 + "@example.com",
        "ann@" + "x" * 64 + ".com",
        "ann@" + ".".join(["x" * 60] * 5) + ".com",
        "ann@xn--\x00.com",
        "ann@xn--zzzzzzzz99999.com",
        "\ud800@example.com",
    ],
)
def test_what_is_not_one_bare_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        wire_form(text)


def test_an_address_knows_its_parts() -> None:
    address = Address(wire_form("Jörg@BÜCHER.example"), "Jörg")
    assert (address.local, address.domain) == ("Jörg", "xn--bcher-kva.example")
    assert address.smtputf8
    assert not Address("ann@example.com").smtputf8


def test_spellings_that_differ_in_case_are_one_to_throttles() -> None:
    assert Address("Ann@example.com").folded == Address("aNN@example.com").folded


ANYTHING = st.one_of(
    st.text(max_size=40),
    st.builds("{}@{}".format, st.text(max_size=12), st.text(max_size=20)),
    st.builds(
        "{}@{}.{}".format,
        st.text("abcXYZ019.!#$%+-_'öß用\u0301\u200d ", min_size=1, max_size=12),
        st.text("abcXYZ019-öß用İ\u3002.", min_size=1, max_size=12),
        st.text("abcXYZ019-用", min_size=1, max_size=6),
    ),
    st.emails(),
)


@given(ANYTHING)
@example("ann@a。b.com")
@example("ann@ＥＸＡＭＰＬＥ.com")
@example("a@ß.com")
def test_a_wire_form_is_safe_on_the_wire_and_its_own_wire_form(text: str) -> None:
    try:
        wire = wire_form(text)
    except AddressError:
        return
    assert wire_form(wire) == wire
    local, at, domain = wire.rpartition("@")
    assert at
    assert domain.isascii()
    assert domain == domain.lower()
    assert "." in domain
    assert not set(wire) & set('<>()[],;:\\" \r\n\t\x00')
    assert wire.isprintable()
    assert len(wire.encode()) <= 254
    assert 1 <= len(local.encode()) <= 64
