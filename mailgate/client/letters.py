"""Mail as frameworks write it, turned into messages of the contract.

Owns what programs written for SMTP may say and the contract says otherwise: addresses
as header text, blind copies alone, headers that mailgate writes itself, empty bodies.
Knows no framework; never publishes.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message as Mime
from email.utils import getaddresses
from typing import Any

from mailgate.client.errors import InvalidMessage
from mailgate.client.message import AddressLike, Attachment, Message

#: Who gets a private message of each in one document (the contract's cap).
MOST_RECIPIENTS = 1000
#: Written by mailgate, so that what a program says of them is left out without a word.
_OURS = ("message-id", "date", "mime-version", "auto-submitted", "content-")
#: Told by fields of the message already.
_TOLD = ("from", "to", "cc", "bcc", "reply-to", "subject")
#: A contract knows no empty subject or body, and mail does.
_EMPTY = " "


def address(text: str) -> AddressLike:
    """``"Ann <ann@example.com>"``, also with encoded words, as the contract has it.

    What is not exactly one address stays as it is: the contract says what is wrong.
    """
    found = getaddresses([text])
    if len(found) != 1 or "@" not in found[0][1]:
        return text
    name, email = found[0]
    return {"email": email, "name": decoded(name)} if name else email


def decoded(text: str) -> str:
    """Header text without its encoded words (RFC 2047)."""
    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, UnicodeDecodeError, LookupError):
        return text


def sender(text: str | None) -> AddressLike | None:
    """Who it is from; nobody for an address at ``localhost``, which frameworks fall back to.

    The sender of the message's stream stands in.
    """
    if not text:
        return None
    found = address(text)
    email = found if isinstance(found, str) else found["email"]
    return (
        None
        if email.rpartition("@")[2].lower() in ("localhost", "localhost.localdomain")
        else found
    )


def files(filename: str | None, content: Any, content_type: str | None, n: int) -> Attachment:
    """A file as frameworks hand it over: text or bytes, perhaps without a name."""
    kind = content_type or (mimetypes.guess_type(filename)[0] if filename else None)
    kind = kind or "application/octet-stream"
    if isinstance(content, str):
        content = content.encode()
        if kind.startswith("text/") and "charset" not in kind:
            kind += "; charset=utf-8"
    elif isinstance(content, Mime):
        content = content.as_bytes()
    if kind.startswith(("message/", "multipart/")):
        # Those may not be base64 (RFC 2046 section 5.2.1), and attachments are.
        filename = filename or f"message-{n}.eml"
        kind = "application/octet-stream"
    if not filename:
        filename = f"attachment-{n}{mimetypes.guess_extension(kind.partition(';')[0]) or '.bin'}"
    return Attachment(filename.replace("/", "_").replace("\\", "_"), bytes(content), kind)


def part(mime: Mime, n: int) -> Attachment:
    """A MIME part as a file; one with a Content-ID is shown inline."""
    content: Any = mime.get_payload(decode=True)
    if content is None:
        inner = mime.get_payload()
        whole = inner[0] if isinstance(inner, list) and inner else None
        content = whole.as_bytes() if isinstance(whole, Mime) else b""
    made = files(mime.get_filename(), content, mime.get_content_type(), n)
    cid = str(mime.get("Content-ID", "")).strip().strip("<>") or None
    return Attachment(made.filename, made.content, made.content_type, cid)


def compose(
    *,
    subject: str,
    from_: str | None,
    to: Sequence[str],
    cc: Sequence[str] = (),
    bcc: Sequence[str] = (),
    reply_to: Sequence[str] = (),
    text: str | None = None,
    html: str | None = None,
    attachments: Sequence[Attachment] = (),
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> list[Message]:
    """The messages that one mail becomes: one, unless blind copies alone are very many.

    Blind copies without a To become private messages, one for each. ``more`` are fields of
    the contract, which go before all else; with a ``template`` the bodies are left out.
    """
    said = {name: str(value) for name, value in (headers or {}).items()}
    low = {name.lower(): value for name, value in said.items()}
    extra = dict(more or {})
    if "list-unsubscribe" in low and "unsubscribe" not in extra:
        extra["unsubscribe"] = _unsubscribe(low["list-unsubscribe"], low)
    made = Message(
        sender=sender(low.get("from") or from_),
        reply_to=[address(a) for a in reply_to or _listed(low.get("reply-to"))],
        subject=subject or _EMPTY,
        text=text or None,
        html=html or None,
        attachments=tuple(attachments),
        headers=_kept(said) or None,
        more=extra,
    )
    if "template" in extra:
        made.text = made.html = None
        made.subject = subject or None
    elif not (text or html):
        made.text = _EMPTY
    shown, copies, blind = _cleaned(to), _cleaned(cc), _cleaned(bcc)
    if not shown and copies:
        shown, copies = copies, []
    if shown or not blind or "recipients" in extra:
        made.to, made.cc, made.bcc = shown, copies, blind
        return [made]
    return [
        _alone(made, blind[i : i + MOST_RECIPIENTS], i // MOST_RECIPIENTS)
        for i in range(0, len(blind), MOST_RECIPIENTS)
    ]


def from_mime(mime: Mime, recipients: Iterable[str] | None = None) -> list[Message]:
    """A whole MIME mail. ``recipients`` is its envelope: who of it no header shows is blind."""
    text = html = None
    attachments: list[Attachment] = []
    for n, one in enumerate((p for p in mime.walk() if not p.is_multipart()), 1):
        kind, attached = one.get_content_type(), one.get_content_disposition() == "attachment"
        if kind == "text/plain" and text is None and not attached:
            text = _text(one)
        elif kind == "text/html" and html is None and not attached:
            html = _text(one)
        else:
            attachments.append(part(one, n))
    lists = {
        name: [decoded(str(v)) for v in mime.get_all(name, [])]
        for name in ("To", "Cc", "Bcc", "Reply-To")
    }
    spread = {name: _each(values) for name, values in lists.items()}
    shown = {email.lower() for name in ("To", "Cc") for email in map(_email, spread[name])}
    wanted = None if recipients is None else {_email(one).lower(): one for one in recipients}
    if wanted is None:
        blind = spread["Bcc"]
    else:
        blind = [one for email, one in wanted.items() if email not in shown]
        for name in ("To", "Cc"):
            spread[name] = [one for one in spread[name] if _email(one).lower() in wanted]
    return compose(
        subject=decoded(str(mime.get("Subject", ""))),
        from_=str(mime.get("From", "")) or None,
        to=spread["To"],
        cc=spread["Cc"],
        bcc=blind,
        reply_to=spread["Reply-To"],
        text=text,
        html=html,
        attachments=attachments,
        headers={k: decoded(str(v)) for k, v in mime.items() if k.lower() not in _TOLD},
    )


def refuse(field: str, rule: str) -> InvalidMessage:
    """The exception for what has no place in the contract."""
    from mailgate.contract import Fault

    return InvalidMessage((Fault(field, rule),))


def _alone(made: Message, blind: list[AddressLike], n: int) -> Message:
    """The n-th of the private mailings; a key that the program chose tells them apart."""
    from dataclasses import replace

    everyone: list[Any] = [{"email": a} if isinstance(a, str) else dict(a) for a in blind]
    more = dict(made.more)
    for name in ("idempotency_key", "id"):
        if n and name in more:
            more[name] = f"{more[name]}-{n}"
    return replace(made, recipients=everyone, more=more)


def _cleaned(addresses: Iterable[str]) -> list[AddressLike]:
    return [address(one) for one in addresses if one]


def _listed(text: str | None) -> list[str]:
    return _each([text]) if text else []


def _each(values: list[str]) -> list[str]:
    """Header values, each of which may list several addresses, one by one."""
    from email.utils import formataddr

    return [formataddr((name, email), "utf-8") for name, email in getaddresses(values) if email]


def _email(text: str) -> str:
    found = address(text)
    return found if isinstance(found, str) else found["email"]


def _text(mime: Mime) -> str:
    content = mime.get_payload(decode=True)
    raw = content if isinstance(content, bytes) else b""
    try:
        return raw.decode(mime.get_content_charset("utf-8"), "replace")
    except LookupError:
        return raw.decode(errors="replace")


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """Without what mailgate writes, and what fields say already."""
    return {
        name: value
        for name, value in headers.items()
        if not name.lower().startswith((*_OURS, "list-unsubscribe")) and name.lower() not in _TOLD
    }


def _unsubscribe(value: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The first https URL of a List-Unsubscribe, else its mailto (RFC 2369, RFC 8058)."""
    urls = [one.strip().strip("<>") for one in value.split(",")]
    chosen = next((u for u in urls if u.startswith("https:")), urls[0])
    one_click = "list-unsubscribe-post" in headers and chosen.startswith("https:")
    return {"url": chosen, "one_click": one_click}
