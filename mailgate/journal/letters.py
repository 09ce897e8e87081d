"""The letter as it lies in the journal: one JSON text a message.

Owns the spelling of ``messages.body`` in both directions. Never renders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mailgate.model import plain
from mailgate.model.address import Address
from mailgate.model.ids import spell
from mailgate.model.message import Attachment, Letter, Unsubscribe


def letter_text(
    *,
    sender: Address,
    mail_from: str,
    domain: str,
    to: Sequence[Address] = (),
    cc: Sequence[Address] = (),
    reply_to: Sequence[Address] = (),
    template: str | None = None,
    data: Mapping[str, Any] | None = None,
    locale: str | None = None,
    subject: str | None = None,
    text: str | None = None,
    html: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
    unsubscribe: Unsubscribe | None = None,
    files: Sequence[Attachment] = (),
) -> str:
    """What ``read_letter`` needs later. ``domain`` is the right side of Message-ID."""
    said = {
        "from": _pair(sender),
        "mail_from": mail_from,
        "domain": domain,
        "to": [_pair(a) for a in to],
        "cc": [_pair(a) for a in cc],
        "reply_to": [_pair(a) for a in reply_to],
        "template": template,
        "data": data,
        "locale": locale,
        "subject": subject,
        "text": text,
        "html": html,
        "headers": list(headers),
        "unsubscribe": [unsubscribe.url, unsubscribe.one_click] if unsubscribe else None,
        "files": len(files),
        "bytes": sum(len(file.content) for file in files),
    }
    lean = {k: v for k, v in said.items() if v or k in ("data", "mail_from", "subject", "text")}
    return plain.written(lean)


def digest_text(
    of: Mapping[str, Any],
    *,
    template: str,
    data: Mapping[str, Any],
    locale: str | None,
    headers: bool,
) -> str:
    """The letter of a digest, as the letter ``of`` its newest item would go.

    Without ``headers`` it leaves out what that one said beside its sender.
    """
    kept = ("from", "mail_from", "domain", "reply_to", "headers", "unsubscribe")
    said = {k: of[k] for k in kept if k in of and (headers or k not in ("headers", "reply_to"))}
    said |= {"template": template, "data": data}
    if locale:
        said["locale"] = locale
    return plain.written(said)


def read_letter(
    body: Mapping[str, Any],
    *,
    message_id: int,
    recipient_id: int,
    date: int,
    kind: str,
    address: Address,
    own: Mapping[str, Any] | None,
    files: Sequence[Attachment] = (),
) -> Letter:
    """The letter for one recipient.

    A shared mail (``to``, ``cc``, ``bcc``) is the same letter for all of them; a
    recipient of ``own`` mail has their own To, data, locale and Message-ID.
    """
    private = kind == "own"
    own = own or {}
    number = spell(recipient_id if private else message_id)
    data = body.get("data")
    if own.get("data"):
        data = {**(data or {}), **own["data"]}
    unsubscribe = body.get("unsubscribe")
    return Letter(
        message_id=f"<{number}@{body['domain']}>",
        date=date,
        boundary_seed=number,
        sender=_address(body["from"]),
        to=(address,) if private else tuple(_address(p) for p in body.get("to", ())),
        cc=tuple(_address(p) for p in body.get("cc", ())),
        reply_to=tuple(_address(p) for p in body.get("reply_to", ())),
        template=body.get("template"),
        data=data,
        locale=own.get("locale") or body.get("locale"),
        subject=body.get("subject"),
        text=body.get("text"),
        html=body.get("html"),
        attachments=tuple(files),
        headers=tuple((name, value) for name, value in body.get("headers", ())),
        unsubscribe=Unsubscribe(*unsubscribe) if unsubscribe else None,
    )


def _pair(address: Address) -> list[str]:
    return [address.email, address.name]


def _address(pair: Sequence[str]) -> Address:
    return Address(pair[0], pair[1])
