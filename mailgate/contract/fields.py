"""The values of the contract: addresses, instants, headers, base64, labels.

Owns the caps and the functions that turn one written value into one accepted
value or raise the rule that it breaks. Never looks at two fields at once:
``submission`` does.
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime
from mimetypes import MimeTypes
from typing import Any

from mailgate.contract.faults import Place, broken, broken_at
from mailgate.model.address import Address, AddressError, wire_form
from mailgate.model.message import Attachment

#: RFC 5322 section 2.1.1: no line of a message is longer than this.
MAX_LINE = 998
MAX_SUBJECT = 998
#: Longer names are a body in the wrong field; clients show some forty characters.
MAX_NAME = 256
#: A longer text is refused before it is parsed (RFC 5321 section 4.5.3.1.3: 254 in all).
MAX_ADDRESS = 320
#: Shared visibly: more than this is a mailing, which is what ``recipients`` is for.
MAX_SHARED = 50
#: One transaction of the journal stays small.
MAX_RECIPIENTS = 1000
#: A recipient has five: a thousand with thousands each would be a million faults.
MAX_FIELDS = 20
#: Identities are indexed; peers allow the same.
MAX_KEY = 256
MAX_TAGS = 10
MAX_TAG = 64
MAX_METADATA = 50
MAX_METADATA_VALUE = 1024
#: Mail clients clip long before (Gmail at 102 KB).
MAX_BODY = 2 * 2**20
#: Input to rendering, so that a template's work is bounded.
MAX_DATA = 256 * 2**10
MAX_ATTACHMENTS = 20
#: Decoded, all together; base64 makes 13.7 MB of it, near what relays take.
MAX_ATTACHED = 10 * 2**20
MAX_HEADERS = 50
MAX_HEADER_NAME = 76
MAX_URL = 900

#: What cannot stand on one line: C0, DEL, C1 (NEL breaks lines too), and Unicode's separators.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

#: A display name before an address: words as people write them, or one quoted string.
#: Commas, semicolons, colons and brackets need the quotes (RFC 5322 section 3.4).
#: The blanks around and before the bracket are nobody else's, or time would be squared.
_NAMED = re.compile(r'(?:"((?:[^"\\]|\\.)*)"\s*|([^"<>,;:@\\()\[\]]*))<([^<>\s]*)>')
_QUOTED_PAIR = re.compile(r"\\(.)")

_INSTANT = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?", re.ASCII
)

_ATOM = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_HEADER_NAME = re.compile(_ATOM)
#: Written by mailgate, by the relays on the way or by a signer: never by a producer.
_OWNED = re.compile(
    r"from|sender|reply-to|to|cc|bcc|subject|date|message-id|mime-version|content-.*"
    r"|received|received-.*|return-path|delivered-to|envelope-to|x-original-to|resent-.*"
    r"|dkim-.*|domainkey-.*|arc-.*|authentication-results|list-unsubscribe|list-unsubscribe-.*"
    r"|auto-submitted|apparently-.*|x-mailgate-.*",
    re.IGNORECASE,
)

_CONTENT_TYPE = re.compile(
    rf"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{{0,126}}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{{0,126}}"
    rf'(?:\s*;\s*{_ATOM}=(?:{_ATOM}|"[^"\\\x00-\x1f\x7f]*"))*',
    re.ASCII,
)
_CONTENT_ID = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+(?:@[A-Za-z0-9.-]+)?", re.ASCII)
_URL = re.compile(r"(https://[^/?#]+|mailto:[^?]+).*", re.ASCII | re.IGNORECASE)
_URL_TEXT = re.compile(r"[!#-;=?-~]+", re.ASCII)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.S)

#: Types by file name from Python's own table, so that every machine guesses alike.
_GUESS = MimeTypes()

ADDRESS_RULE = "must be one address: a string, or an object with email and name"


def mailbox(value: Any) -> Address:
    """``"ann@example.org"``, ``"Ann <ann@example.org>"`` or ``{"email": …, "name": …}``."""
    if type(value) is str:
        if "<" not in value:
            return Address(_wire(value))
        return _named(value)
    if isinstance(value, Address):
        return value
    if type(value) is not dict:
        raise broken(ADDRESS_RULE)
    faults: list[tuple[Place, str]] = []
    email = name = ""
    try:
        email = bare_address(value["email"])
    except KeyError:
        faults.append((("email",), "is required"))
    except ValueError as error:
        faults.append((("email",), rule_of(error)))
    try:
        name = display_name(value.get("name"))
    except ValueError as error:
        faults.append((("name",), rule_of(error)))
    faults += [((k,), "is not a field of an address") for k in value if k not in ("email", "name")]
    if faults:
        raise broken_at(faults)
    return Address(email, name)


def bare_address(value: Any) -> str:
    """One address without a display name, in wire form."""
    if type(value) is not str:
        raise broken("must be a string")
    return _wire(value)


def display_name(value: Any) -> str:
    """A name to show beside an address; null is none."""
    if value is None:
        return ""
    if type(value) is not str:
        raise broken("must be a string")
    if len(value) > MAX_NAME:
        raise broken(f"must not be longer than {MAX_NAME} characters")
    if CONTROLS.search(value):
        raise broken("must be one line without control characters")
    return value.strip()


def rule_of(error: ValueError) -> str:
    """The sentence within what ``broken`` or pydantic raised."""
    context = getattr(error, "context", None) or {}
    return str(context.get("rule", "is not valid"))


def _wire(text: str) -> str:
    if len(text) > MAX_ADDRESS:
        raise broken("must be one email address, and this is too long for one")
    try:
        return wire_form(text)
    except AddressError as error:
        if "," in text or ";" in text:
            raise broken("must be one email address; write several as a list") from None
        raise broken(f"must be one email address ({_why(str(error))})") from None
    except ValueError:
        # Odd input can trip the library itself (UnicodeError of the IDNA codec).
        raise broken("must be one email address") from None


def _why(sentence: str) -> str:
    """The library's reason without the characters that it quotes from the address."""
    return sentence.partition(": ")[0].rstrip(".") if ": " in sentence else sentence.rstrip(".")


def _named(text: str) -> Address:
    if len(text) > MAX_NAME + MAX_ADDRESS:
        raise broken("is too long for one address with a name")
    found = _NAMED.fullmatch(text.strip())
    if found is None:
        raise broken("must be exactly one address; a name with commas or colons needs quotes")
    quoted, words, email = found.groups()
    name = _QUOTED_PAIR.sub(r"\1", quoted) if quoted is not None else words
    return Address(_wire(email), display_name(name))


def instant(value: Any) -> datetime:
    """An RFC 3339 date and time with an offset, as UTC."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if type(value) is not str:
        raise broken("must be a string with a date and time (RFC 3339)")
    found = _INSTANT.fullmatch(value)
    if found is None:
        raise broken("must be a date and time such as 2030-01-31T09:00:00Z (RFC 3339)")
    if found[1] is None:
        raise broken("needs an offset: end it with Z or with one such as +02:00")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise broken("names no moment that exists in the calendar") from None


def headers(value: Any) -> tuple[tuple[str, str], ...]:
    """Extra header fields; those that mailgate or a relay writes are refused."""
    if isinstance(value, tuple):
        value = dict(value)
    if type(value) is not dict:
        raise broken("must be an object of header names and values")
    if len(value) > MAX_HEADERS:
        raise broken(f"must not hold more than {MAX_HEADERS} headers")
    faults: list[tuple[Place, str]] = []
    seen: set[str] = set()
    for name, text in value.items():
        if len(name) > MAX_HEADER_NAME or not _HEADER_NAME.fullmatch(name):
            faults.append(((name,), "is not a header name (letters, digits and hyphens)"))
        elif _OWNED.fullmatch(name):
            faults.append(((name,), "is a header that producers cannot set"))
        elif name.lower() in seen:
            faults.append(((name,), "is given twice"))
        seen.add(name.lower())
        if type(text) is not str:
            faults.append(((name,), "must be a string"))
        elif len(text) > MAX_LINE:
            faults.append(((name,), f"must not be longer than {MAX_LINE} characters"))
        elif CONTROLS.search(text):
            faults.append(((name,), "must be one line without control characters"))
    if faults:
        raise broken_at(faults)
    return tuple(value.items())


def metadata(value: Any) -> dict[str, str | int | float | bool]:
    """The producer's own labels, given back in events; never read by mailgate."""
    if type(value) is not dict:
        raise broken("must be an object")
    if len(value) > MAX_METADATA:
        raise broken(f"must not hold more than {MAX_METADATA} entries")
    faults: list[tuple[Place, str]] = []
    for key, item in value.items():
        if not key or len(key) > MAX_TAG or CONTROLS.search(key):
            faults.append(((key,), f"must have a name of 1 to {MAX_TAG} characters on one line"))
        if type(item) is str:
            if len(item) > MAX_METADATA_VALUE:
                faults.append(((key,), f"must not be longer than {MAX_METADATA_VALUE} characters"))
        elif not isinstance(item, bool | int | float):
            faults.append(((key,), "must be a string, a number, true or false"))
    if faults:
        raise broken_at(faults)
    return value


def body(value: str) -> str:
    """A text or HTML part; the cap is in bytes of UTF-8."""
    if len(value) * 4 > MAX_BODY and len(value.encode()) > MAX_BODY:
        raise broken(f"must not be larger than {MAX_BODY // 2**20} MB")
    if "\0" in value:
        raise broken("must not contain NUL")
    return value


def traceparent(value: str) -> str:
    """W3C Trace Context, level 1, section 3.2."""
    found = _TRACEPARENT.fullmatch(value)
    if (
        found is None
        or len(value) > 512
        or found[1] == "ff"
        or (found[1] == "00" and found[4] is not None)
        or not found[2].strip("0")
        or not found[3].strip("0")
    ):
        raise broken("must be a traceparent as W3C Trace Context defines it")
    return value


def unsubscribe_url(value: str) -> str:
    """What List-Unsubscribe may hold (RFC 2369): https or mailto."""
    if len(value) > MAX_URL:
        raise broken(f"must not be longer than {MAX_URL} characters")
    if not _URL.fullmatch(value) or not _URL_TEXT.fullmatch(value):
        raise broken("must be an https or a mailto URL in printable ASCII")
    return value


def attachment_list(value: Any) -> Any:
    """Check the number and the size of all before any of them is decoded."""
    if type(value) is not list:
        return value
    if len(value) > MAX_ATTACHMENTS:
        raise broken(f"must not be more than {MAX_ATTACHMENTS}")
    size = sum(_decoded_size(a.get("content")) for a in value if type(a) is dict)
    if size > MAX_ATTACHED:
        raise broken(f"must not be larger than {MAX_ATTACHED // 2**20} MB in all, decoded")
    ids = [a["content_id"] for a in value if type(a) is dict and type(a.get("content_id")) is str]
    if len(ids) != len(set(ids)):
        raise broken("must not use one content_id twice")
    return value


def _decoded_size(content: Any) -> int:
    return len(content) // 4 * 3 - content[-2:].count("=") if type(content) is str else 0


def attachment(value: Any) -> Attachment:
    """A file; its base64 is decoded here, strictly (RFC 4648 section 3.3)."""
    if isinstance(value, Attachment):
        return value
    if type(value) is not dict:
        raise broken("must be an object")
    faults: list[tuple[Place, str]] = []
    names = ("filename", "content", "content_type", "content_id")
    for key in names:
        if key not in value:
            if key in ("filename", "content"):
                faults.append(((key,), "is required"))
        elif type(value[key]) is not str and (value[key] is not None or key in names[:2]):
            faults.append(((key,), "must be a string"))
    faults += [((k,), "is not a field of an attachment") for k in value if k not in names]
    if faults:
        raise broken_at(faults)
    filename = value["filename"]
    if not 0 < len(filename) <= 255 or CONTROLS.search(filename) or re.search(r"[/\\]", filename):
        faults.append((("filename",), "must be 1 to 255 characters on one line without slashes"))
    kind = value.get("content_type") or _guess(filename)
    if len(kind) > 255 or not _CONTENT_TYPE.fullmatch(kind):
        faults.append((("content_type",), "must be a media type such as application/pdf"))
    elif kind.lower().startswith(("multipart/", "message/")):
        # RFC 2046 sections 5.1 and 5.2.1: these may not be base64.
        faults.append((("content_type",), "must not be a multipart or message type"))
    cid = value.get("content_id")
    if cid is not None and (len(cid) > 200 or not _CONTENT_ID.fullmatch(cid)):
        faults.append((("content_id",), "must be letters, digits, dots and hyphens, without <>"))
    text, content = value["content"], b""
    try:
        # Strict mode lets surplus padding pass, which is why we look ourselves.
        if len(text) % 4 or "=" in text[:-2]:
            raise ValueError
        content = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        rule = "must be base64 (RFC 4648) without line breaks or other characters"
        faults.append((("content",), rule))
    if faults:
        raise broken_at(faults)
    return Attachment(filename, kind, content, cid)


def _guess(filename: str) -> str:
    kind, encoding = _GUESS.guess_type(filename)
    safe = kind and not encoding and not kind.startswith(("multipart/", "message/"))
    return kind if kind and safe else "application/octet-stream"
