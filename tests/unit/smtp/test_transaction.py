"""What goes onto the wire is what the envelope holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailgate.model.message import Envelope
from mailgate.smtp.opening import Offers
from mailgate.smtp.transaction import DOT, commands, stuffed, unfit


def received(wire: bytes) -> bytes:
    """What a server makes of a body (RFC 5321 section 4.5.2), by its own reading."""
    lines = []
    for line in wire.split(b"\r\n"):
        if line == b".":
            return b"".join(x + b"\r\n" for x in lines)
        lines.append(line[1:] if line.startswith(b".") else line)
    raise AssertionError("no end of data")


@given(st.lists(st.text(". ax", max_size=4), min_size=1, max_size=8))
def test_dots_come_back_as_they_went(lines: list[str]) -> None:
    content = b"".join(line.encode() + b"\r\n" for line in lines)
    wire = stuffed(content) + DOT
    assert received(wire) == content
    assert wire.count(b"\r\n.\r\n") + wire.startswith(b".\r\n") == 1


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"x"]), max_size=10))
def test_no_content_can_end_the_data_early(parts: list[bytes]) -> None:
    content = b"".join(parts) + b"\r\n"
    refused = unfit(Envelope("a@example.com", "b@example.com", content), Offers())
    clean = content.replace(b"\r\n", b"")
    assert (refused is None) == (b"\r" not in clean and b"\n" not in clean)


@given(st.text(max_size=30), st.text(max_size=30))
def test_addresses_are_taken_literally_or_not_at_all(mail_from: str, rcpt_to: str) -> None:
    envelope = Envelope(mail_from, rcpt_to, b"x\r\n")
    offers = Offers(smtputf8=True, eight_bit=True)
    if unfit(envelope, offers) is None:
        mail, rcpt, _ = commands(envelope, offers)
        assert mail.decode().startswith(f"MAIL FROM:<{mail_from}>")
        assert rcpt.decode() == f"RCPT TO:<{rcpt_to}>\r\n"
        for command in (mail, rcpt):
            assert command.count(b"\r") == command.count(b"\n") == 1
            assert command.count(b"<") == command.count(b">") == 1
