"""Header fields as lines: RFC 5322 with RFC 2047 words and RFC 2231 parameters.

Owns every rule on what may stand in a header and how it is folded. Lines are
at most 78 columns where a fold can be had and never more than 998. Opaque
values (URLs, identifiers) are folded at blanks or not at all, never encoded:
a one-click URL in encoded words is dead.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from mailgate.model.address import Address
from mailgate.render.errors import RenderError

_WIDTH = 78
_LIMIT = 998
#: RFC 2047 section 2.
_WORD = 75

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$%&'*+.^_`|~-]{0,75}\Z")
_TYPE = re.compile(r"([A-Za-z0-9!#$&^_.+-]+)/([A-Za-z0-9!#$&^_.+-]+)\Z")
_PARAMETER = re.compile(
    r"\s*([A-Za-z0-9!#$&^_.+-]+)=(?:\"([ !#-\[\]-~]*)\"|([A-Za-z0-9!#$&^_.+-]+))\s*\Z"
)
#: What of Q encoding may stand in a phrase too (RFC 2047 section 5, rule 3).
_Q_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")

#: Fields that are ours, or that other systems read as said by a server.
RESERVED = frozenset(
    {
        "from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id",
        "mime-version", "list-unsubscribe", "list-unsubscribe-post", "auto-submitted",
        "return-path", "received", "received-spf", "delivered-to", "x-original-to",
        "dkim-signature", "domainkey-signature", "authentication-results",
        "disposition-notification-to", "return-receipt-to", "errors-to", "apparently-to",
    }
)  # fmt: skip
_RESERVED_PREFIXES = ("content-", "resent-", "arc-")


def refuse(field: str, rule: str) -> RenderError:
    return RenderError("header_invalid", f"{field}: {rule}")


def check_text(field: str, value: str) -> None:
    """Refuse what could end a header line or hide in it (CVE-2024-6923)."""
    if not (value.isascii() and value.isprintable()) and _CONTROLS.search(value):
        raise refuse(field, "holds a line end or a control character")


def unstructured(name: str, value: str) -> str:
    """A field of free text, such as Subject."""
    check_text(name, value)
    value = value.strip()
    if value.isascii() and "=?" not in value:
        line = f"{name}: {value}\r\n"
        if len(line) <= _WIDTH + 2:
            return line
        folded = _fold(name, value, _WIDTH)
        if folded is not None:
            return folded
    return f"{name}: {_encoded_words(value, len(name) + 2)}\r\n"


def opaque(name: str, value: str) -> str:
    """A field of identifiers or URLs: as it is, folded only between words."""
    check_text(name, value)
    if not value.isascii():
        raise refuse(name, "takes ASCII only")
    line = f"{name}: {value}\r\n"
    if len(line) <= _WIDTH + 2:
        return line
    folded = _fold(name, value, _LIMIT)
    if folded is None:
        raise refuse(name, f"is longer than a header line may be ({_LIMIT})")
    return folded


def custom(name: str, value: str) -> str:
    """A producer's own field. Raises ``RenderError`` for a name that is not free."""
    if not _NAME.match(name):
        raise refuse("headers", "a name is a word of letters, digits and hyphens")
    lower = name.lower()
    if lower in RESERVED or lower.startswith(_RESERVED_PREFIXES):
        raise refuse(f"headers.{name}", "is not for producers to set")
    check_text(f"headers.{name}", value)
    if value.isascii() and not re.search(r"=\?[^?]*\?[bBqQ]\?", value):
        return opaque(name, value.strip())
    return unstructured(name, value)


def _fold(name: str, value: str, limit: int) -> str | None:
    """Fold between words; ``None`` where a word or a run of blanks is in the way."""
    if "  " in value:
        return f"{name}: {value}\r\n" if len(name) + 2 + len(value) <= min(limit, _LIMIT) else None
    lines, line = [], f"{name}:"
    for word in value.split(" "):
        if len(word) + 1 > limit:
            return None
        if len(line) + 1 + len(word) > _WIDTH and line != f"{name}:":
            lines.append(line)
            line = ""
        line += " " + word
    lines.append(line)
    if any(len(line) > limit for line in lines):
        return None
    return "\r\n".join(lines) + "\r\n"


def _encoded_words(text: str, column: int) -> str:
    """Encoded words split between characters, each on its line (RFC 2047 section 2)."""
    raw = text.encode()
    plain = sum(byte in _Q_SAFE or byte == 32 for byte in raw)
    as_q = plain * 5 > len(raw) * 3
    words: list[str] = []
    room = min(_WORD, _WIDTH - column) - len("=?utf-8?q??=")
    piece, used = "", 0
    for char in text:
        cost = _q_cost(char) if as_q else len(char.encode())
        if used + cost > (room if as_q else room // 4 * 3) and piece:
            words.append(_word(piece, as_q))
            piece, used = "", 0
            room = _WORD - len("=?utf-8?q??=")
        piece, used = piece + char, used + cost
    words.append(_word(piece, as_q))
    return "\r\n ".join(words)


def _q_cost(char: str) -> int:
    return sum(1 if byte in _Q_SAFE or byte == 32 else 3 for byte in char.encode())


def _word(piece: str, as_q: bool) -> str:
    if as_q:
        body = "".join(
            chr(b) if b in _Q_SAFE else "_" if b == 32 else f"={b:02X}" for b in piece.encode()
        )
        return f"=?utf-8?q?{body}?="
    return f"=?utf-8?b?{b2a_base64(piece.encode(), newline=False).decode()}?="


@lru_cache(maxsize=2048)
def mailbox(field: str, name: str, email: str) -> str:
    """``name <email>``, perhaps on several lines, the first meant for column 0 or 1."""
    check_text(field, name)
    check_text(field, email)
    if re.search(r"[\s<>,;:\"()\\]", email) or "@" not in email:
        raise refuse(field, "holds something else than one bare address")
    name = " ".join(name.split())
    if not name:
        return f"<{email}>" if len(email) > 240 else email
    if name.isascii() and "=?" not in name and len(name) <= 60:
        if not _ATOMS.match(name):
            escaped = name.replace("\\", "\\\\").replace('"', '\\"')
            name = f'"{escaped}"'
    else:
        name = _encoded_words(name, 12)
    last = name.rpartition("\n")[2]
    gap = " " if len(last) + len(email) + 3 <= _WIDTH - 2 else "\r\n "
    return f"{name}{gap}<{email}>"


def addresses(field: str, people: Iterable[Address]) -> str:
    """An address field; each mailbox that does not fit goes onto the next line."""
    out = f"{field}:"
    column = len(out)
    for number, person in enumerate(people):
        written = mailbox(field, person.name, person.email)
        first, cut, _ = written.partition("\r\n")
        if number:
            out += ","
            column += 1
            if column + len(first) + 2 > _WIDTH:
                out += "\r\n"
                column = 0
        out += f" {written}"
        column = len(written.rpartition("\n")[2]) if cut else column + 1 + len(written)
    return out + "\r\n"


def parameter(name: str, value: str) -> str:
    """``; name=value`` on lines of its own (RFC 2231 where it is not ASCII or long)."""
    check_text(name, value)
    if value.isascii() and len(value) <= 60:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f';\r\n {name}="{escaped}"'
    coded = [quote(char, safe="!#$&+-.^_`|~") for char in value]
    if sum(map(len, coded)) <= 58:
        return f";\r\n {name}*=utf-8''{''.join(coded)}"
    # Cut between characters: some readers decode each part alone.
    parts = [""]
    for char in coded:
        if len(parts[-1]) + len(char) > 50:
            parts.append("")
        parts[-1] += char
    out = f";\r\n {name}*0*=utf-8''{parts[0]}"
    for number, part in enumerate(parts[1:], 1):
        out += f";\r\n {name}*{number}*={part}"
    return out


def content_type(field: str, value: str) -> str:
    """A producer's content type, checked and written anew with its parameters.

    ``message/*`` and ``multipart/*`` may not be base64 (RFC 2046 section 5.2.1),
    and an attachment always is: they go as ``application/octet-stream``.
    """
    check_text(field, value)
    kind, *parameters = value.split(";")
    found = _TYPE.match(kind.strip())
    if not found:
        raise refuse(field, "is not a content type such as application/pdf")
    if found[1].lower() in ("message", "multipart"):
        return "application/octet-stream"
    out = kind.strip().lower()
    for text in parameters:
        given = _PARAMETER.match(text)
        if not given:
            raise refuse(field, "has a parameter that is not name=value")
        if given[1].lower() not in ("name", "boundary"):
            out += f'; {given[1].lower()}="{given[2] if given[2] is not None else given[3]}"'
    if len(out) > 200:
        raise refuse(field, "is too long")
    return out
