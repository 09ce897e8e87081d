"""Quoted-printable and base64 with CRLF line ends, 7-bit clean (RFC 2045).

Owns the body encodings. A static piece of a mail is encoded once: it begins
at column 0 and ends with a soft line break, so that any value, also encoded
alone, can follow it and the next piece can follow the value.
"""

from __future__ import annotations

import re
from binascii import a2b_qp, b2a_base64, b2a_qp
from collections.abc import Sequence

_SOFT = "=\r\n"
#: Goes through as it is, on one line together with the soft break's ``=``.
_PLAIN = re.compile(r"[ -<>-~]{0,75}\Z")
#: Bytes that make whole lines of base64.
_WHOLE = 57 * 1024
_LONG = re.compile(rb"^(.{74,75})(=20|=09)$", re.MULTILINE)


def quoted_printable(text: str) -> str:
    """A whole body; ``text`` has LF line ends. Ends with a line end."""
    out = _encoded(text.encode()).decode("ascii")
    return out if out.endswith("\r\n") or not out else out + "\r\n"


def pieces(parts: Sequence[str]) -> tuple[str, ...]:
    """Static pieces between values, each ready to stand between encoded values.

    A value follows each but the last, and a soft break comes before each but
    the first: it belongs to the piece.
    """
    last = len(parts) - 1
    out = []
    for index, part in enumerate(parts):
        lead = _SOFT if index else ""
        whole = quoted_printable(part) or "\r\n" if index == last else _open_ended(part)
        out.append(lead + whole)
    return tuple(out)


def piece(value: str) -> str:
    """One value between two pieces: begins at column 0, leaves room for a soft break."""
    if _PLAIN.match(value):
        return value
    return _unbroken(value)


def _open_ended(part: str) -> str:
    body = _unbroken(part)
    return body if not body or body.endswith("\r\n") else body + _SOFT


def _unbroken(part: str) -> str:
    # The sentinel keeps the encoder from treating the last blank as the end of
    # a line and keeps a column free on the last line; then it goes again.
    return _encoded((part + "x").encode())[:-1].decode("ascii")


def _encoded(raw: bytes) -> bytes:
    if b"\r" in raw:
        # The encoder lets a bare one through, and SMTP must not see it.
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    out = b2a_qp(raw, istext=True)
    if b" \n" in raw or b"\t\n" in raw or raw.endswith((b" ", b"\t")):
        # b2a_qp forgets to break the line where it encodes a blank at its end.
        out = _LONG.sub(rb"\1=\n\2", out)
    return out.replace(b"\n", b"\r\n")


def says(wire: str, text: str) -> bool:
    """Whether an encoded body is one that may be sent, and decodes to ``text``."""
    lines = wire.split("\r\n")
    if not wire.isascii() or any(len(line) > 76 or "\n" in line or "\r" in line for line in lines):
        return False
    said = a2b_qp(wire.replace("\r\n", "\n").encode()).decode(errors="replace")
    return said.rstrip("\n") == text.rstrip("\n")


def base64_lines(content: bytes) -> bytes:
    """Base64 in lines of 76 with CRLF, ending with one."""
    return b"".join(base64_pieces(content))


def base64_pieces(content: bytes) -> list[bytes]:
    """The same in pieces: of a large file nothing is held twice."""
    return [_lines(content[at : at + _WHOLE]) for at in range(0, len(content), _WHOLE)]


def _lines(content: bytes) -> bytes:
    raw = b2a_base64(content, newline=False)
    return b"".join([raw[i : i + 76] + b"\r\n" for i in range(0, len(raw), 76)])
