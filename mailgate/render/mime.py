"""A letter's bytes: fields, parts and boundaries, put together by hand.

Owns the structure mixed(alternative(text, related(html, inline)), attachments)
without the levels that are not needed. Every body is quoted-printable or
base64 and every line ends in CRLF, so the result is 7-bit clean and holds no
bare CR, LF or NUL whatever comes in (SMTP smuggling, CVE-2023-51764). The one
exception are addresses whose local part is not ASCII: their field is UTF-8
(RFC 6532) and needs a relay with SMTPUTF8.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from mailgate.model.message import Attachment, Letter
from mailgate.render import headers
from mailgate.render.encode import base64_pieces

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_IDENTIFIER = re.compile(r"<?([!-;=?-~]+@[!-;=?-~]+)>?\Z")
_HTTPS = re.compile(r"(?:https://[!-;=?-~]+|mailto:[!-;=?-~]+)\Z")


class Body(NamedTuple):
    """The parts of a mail, each already in quoted-printable."""

    subject: str
    text: str | None
    html: str | None


class _Part(NamedTuple):
    """A MIME entity: its header lines, then its body in pieces; ASCII."""

    head: str
    body: Sequence[bytes]


def build(letter: Letter, body: Body) -> bytes:
    """The message as it goes onto the wire, before dot-stuffing.

    Equal letters and bodies give equal bytes. Raises ``RenderError``
    (``header_invalid``) for what may not stand in a header.
    """
    inline = tuple(a for a in letter.attachments if a.content_id and body.html is not None)
    files = tuple(a for a in letter.attachments if a not in inline)
    part = _content(letter.boundary_seed, body, inline)
    if files:
        part = _multipart("mixed", letter.boundary_seed, [part, *map(_attachment, files)])
    head = (_fields(letter, body.subject) + part.head + "\r\n").encode()
    # Once, at the end: of large files no more is held meanwhile than must be.
    return b"".join([head, *part.body])


def _fields(letter: Letter, subject: str) -> str:
    found = _IDENTIFIER.match(letter.message_id)
    if not found:
        raise headers.refuse("message_id", "is not of the form left@right")
    out = [
        headers.addresses("From", (letter.sender,)),
        headers.addresses("To", letter.to) if letter.to else "To: undisclosed-recipients:;\r\n",
        headers.addresses("Cc", letter.cc) if letter.cc else "",
        headers.addresses("Reply-To", letter.reply_to) if letter.reply_to else "",
        headers.unstructured("Subject", subject),
        f"Date: {date(letter.date)}\r\n",
        headers.opaque("Message-ID", f"<{found[1]}>"),
        "Auto-Submitted: auto-generated\r\n",
    ]
    if letter.unsubscribe is not None:
        url = letter.unsubscribe.url
        if not _HTTPS.match(url):
            raise headers.refuse("unsubscribe.url", "must be an https: or mailto: URL in ASCII")
        out.append(headers.opaque("List-Unsubscribe", f"<{url}>"))
        if letter.unsubscribe.one_click:
            if not url.startswith("https:"):
                raise headers.refuse("unsubscribe.url", "one-click needs https: (RFC 8058)")
            out.append("List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n")
    seen = set()
    for name, value in letter.headers:
        if name.lower() in seen:
            raise headers.refuse(f"headers.{name}", "is given twice")
        seen.add(name.lower())
        out.append(headers.custom(name, value))
    out.append("MIME-Version: 1.0\r\n")
    return "".join(out)


def date(milliseconds: int) -> str:
    """RFC 5322 section 3.3, in UTC."""
    return _second(milliseconds // 1000)


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"
    )


def _content(seed: str, body: Body, inline: Sequence[Attachment]) -> _Part:
    text = None if body.text is None else _readable("plain", body.text)
    html = None if body.html is None else _readable("html", body.html)
    if html is not None and inline:
        html = _multipart("related", seed, [html, *map(_attachment, inline)], '; type="text/html"')
    if text is not None and html is not None:
        return _multipart("alternative", seed, [text, html])
    return text or html or _readable("plain", "\r\n")


def _readable(subtype: str, encoded: str) -> _Part:
    head = (
        f'Content-Type: text/{subtype}; charset="utf-8"\r\n'
        "Content-Transfer-Encoding: quoted-printable\r\n"
    )
    return _Part(head, (encoded.encode("ascii"),))


def _attachment(file: Attachment) -> _Part:
    kind = headers.content_type("attachments.content_type", file.content_type)
    disposition = "attachment"
    identifier = ""
    if file.content_id:
        bare = file.content_id.strip("<>")
        if not re.fullmatch(r"[!-;=?-~]{1,200}", bare):
            raise headers.refuse("attachments.content_id", "is not one word in ASCII")
        identifier = f"Content-ID: <{bare}>\r\n"
        disposition = "inline"
    name = file.filename.replace("/", "_").replace("\\", "_").strip()
    named = headers.parameter("filename", name) if name else ""
    head = (
        f"Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n{identifier}"
        f"Content-Disposition: {disposition}{named}\r\n"
    )
    return _Part(head, base64_pieces(file.content))


def _multipart(subtype: str, seed: str, parts: Sequence[_Part], extra: str = "") -> _Part:
    # "=_" occurs in no quoted-printable and no base64 body, so no body can
    # hold the boundary, and nobody needs to look.
    boundary = f"=_{blake2b(f'{subtype}:{seed}'.encode(), digest_size=12).hexdigest()}"
    out = []
    for part in parts:
        out += [f"--{boundary}\r\n{part.head}\r\n".encode("ascii"), *part.body, b"\r\n"]
    out.append(f"--{boundary}--\r\n".encode("ascii"))
    return _Part(f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"{extra}\r\n', out)
