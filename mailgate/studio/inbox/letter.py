"""What is in a mail: headers as people read them, HTML, text, attachments.

Owns the reading of MIME as it came, however broken. Pure. Never raises on a
hostile mail: what cannot be read is shown as its source.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import policy
from email.header import decode_header
from email.message import Message
from email.parser import BytesHeaderParser, BytesParser
from urllib.parse import unquote

#: A header or a file name longer than this is cut in lists.
_LONG = 1000
#: Types that a browser shows as an image inside a mail.
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"})
#: Python's own codecs, which no mail is written in and which may take very long.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})
_CID = re.compile(r"cid:([^\"'\s)>&]+)", re.IGNORECASE)
#: Elements for which a browser may open a connection before it asks the frame's policy,
#: which then refuses them. Renamed, they are elements that nobody knows.
_CONNECTS = re.compile(
    r"<(/?)(?=(?:link|iframe|frame|frameset|object|embed|applet|portal)\b)", re.IGNORECASE
)
_UNSAFE_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f/\\:*?\"<>|\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Summary:
    subject: str
    sender: str
    recipients: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part that is neither the text nor the HTML; ``filename`` is safe to save as."""

    filename: str
    content_type: str
    content: bytes
    content_id: str | None


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail taken apart; ``fault`` says why, when it could not be."""

    headers: tuple[tuple[str, str], ...] = ()
    html: str | None = None
    text: str | None = None
    attachments: tuple[Attachment, ...] = ()
    fault: str | None = None


@dataclass(slots=True)
class _Parts:
    html: str | None = None
    text: str | None = None
    attachments: list[Attachment] = field(default_factory=list)


def summary(content: bytes) -> Summary:
    """The three headers of the list."""
    head = content[: 64 * 1024].partition(b"\r\n\r\n")[0]
    try:
        message = BytesHeaderParser(policy=policy.compat32).parsebytes(head)
        headers = {name.lower(): value for name, value in reversed(_headers(message))}
    except Exception:  # noqa: BLE001 - a hostile header may never keep a mail from being listed
        headers = {}
    return Summary(*(headers.get(name, "")[:_LONG] for name in ("subject", "from", "to")))


def read(content: bytes) -> Letter:
    """A mail taken apart."""
    try:
        message = BytesParser(policy=policy.compat32).parsebytes(content)
        headers = tuple(_headers(message))
        found = _Parts()
        for part in _leaves(message):
            _sort(part, found)
    except RecursionError:
        return Letter(fault="Its parts are nested too deeply to be read.")
    except Exception as error:  # noqa: BLE001 - the parser's own bugs must not hide the source
        return Letter(fault=f"It could not be read ({type(error).__name__}).")
    return Letter(headers, found.html, found.text, tuple(found.attachments))


def framed(letter: Letter, head: str = "") -> str:
    """The HTML for the sandboxed frame: its own images inside, links in a new tab.

    ``head`` is markup of the page's own that goes before the mail's.
    """
    images = {
        part.content_id: part
        for part in letter.attachments
        if part.content_id and part.content_type in _IMAGES
    }

    def inline(found: re.Match[str]) -> str:
        part = images.get(unquote(found[1]))
        if part is None:
            return found[0]
        return f"data:{part.content_type};base64,{base64.b64encode(part.content).decode()}"

    html = _CONNECTS.sub(r"<\1x-", letter.html or "")
    # The first <base> decides where links open; it stands before the mail's own.
    return _with_head(_CID.sub(inline, html), f'<base target="_blank">{head}')


def _with_head(html: str, head: str) -> str:
    doctype = re.match(r"\s*<!doctype[^>]*>", html, re.IGNORECASE)
    at = doctype.end() if doctype else 0
    return html[:at] + head + html[at:]


def safe_name(name: str | None, content_type: str, number: int) -> str:
    """A file name without path, control or reserved characters, never empty or hidden."""
    safe = _UNSAFE_NAME.sub("_", (name or "").replace("\\", "/").rpartition("/")[2])
    safe = safe.strip(" .")[-120:]
    kind = re.sub(r"[^a-z0-9]", "", content_type.rpartition("/")[2])[:10]
    return safe or f"part-{number}.{'eml' if kind == 'rfc822' else kind or 'bin'}"


def _leaves(message: Message) -> Iterator[Message]:
    """The parts that hold something; a mail within the mail is one of them."""
    if message.get_content_maintype() == "multipart" and isinstance(message.get_payload(), list):
        for part in message.get_payload():
            if isinstance(part, Message):
                yield from _leaves(part)
    else:
        yield message


def _sort(part: Message, found: _Parts) -> None:
    kind = part.get_content_type()
    attached = part.get_content_disposition() == "attachment"
    if kind == "text/html" and not attached and found.html is None:
        found.html = _text(part)
    elif kind == "text/plain" and not attached and found.text is None:
        found.text = _text(part)
    else:
        number = len(found.attachments) + 1
        content_id = part.get("Content-ID")
        found.attachments.append(
            Attachment(
                safe_name(_decoded(part.get_filename() or ""), kind, number),
                kind,
                _bytes(part),
                str(content_id).strip().strip("<>") if content_id else None,
            )
        )


def _bytes(part: Message) -> bytes:
    payload = part.get_payload()
    if isinstance(payload, list):  # message/rfc822
        return b"".join(inner.as_bytes() for inner in payload if isinstance(inner, Message))
    decoded = part.get_payload(decode=True)
    return decoded if isinstance(decoded, bytes) else b""


def _text(part: Message) -> str:
    return _read(_bytes(part), part.get_content_charset())


def _read(raw: bytes, charset: str | None) -> str:
    """``raw`` in its charset where that is one of a mail's, else as UTF-8; never a surrogate."""
    try:
        name = codecs.lookup(charset or "utf-8").name
        text = raw.decode("utf-8" if name in _NO_CHARSETS else name, "replace")
    except (LookupError, ValueError):
        text = raw.decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode()


def _headers(message: Message) -> list[tuple[str, str]]:
    """Every header in order, decoded and unfolded."""
    return [(str(name), _decoded(str(value))) for name, value in message.raw_items()]


def _decoded(value: str) -> str:
    """A header's text: RFC 2047 words decoded, raw UTF-8 (RFC 6532) as it is."""
    value = re.sub(r"\r?\n(?=[ \t])", "", value)
    value = value.encode("ascii" if value.isascii() else "utf-8", "surrogateescape").decode(
        "utf-8", "replace"
    )
    if "=?" not in value:
        return value
    parts = []
    for text, charset in decode_header(value):
        if isinstance(text, str):
            parts.append(text)
            continue
        parts.append(_read(text, charset))
    return "".join(parts)
