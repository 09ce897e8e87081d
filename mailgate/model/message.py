"""What was accepted, as frozen values: messages, recipients, the envelope on the wire.

Owns no behaviour beyond what follows from the values themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mailgate.model.address import Address
from mailgate.model.state import Lane
from mailgate.model.value import Value


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a message; with a ``content_id`` it is shown inline."""

    filename: str
    content_type: str
    content: bytes
    content_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Where ``List-Unsubscribe`` points (RFC 2369); ``one_click`` adds RFC 8058."""

    url: str
    one_click: bool = True


class Letter(Value, frozen=True):
    """Everything that the bytes of one mail are made from, and nothing else.

    Equal letters render to equal bytes: time and randomness come in through
    ``message_id``, ``date`` and ``boundary_seed``, fixed at acceptance.

    ``date`` is milliseconds since 1970 (UTC). Either ``template`` is set, or
    ``subject`` and at least one of ``text`` and ``html``.
    """

    message_id: str
    date: int
    boundary_seed: str
    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    template: str | None = None
    data: Mapping[str, Any] | None = None
    locale: str | None = None
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    unsubscribe: Unsubscribe | None = None


class Envelope(Value, frozen=True):
    """What one SMTP transaction carries (RFC 5321 section 2.3.1): one recipient.

    ``mail_from`` is empty for the null reverse-path. ``content`` ends in CRLF and
    has CRLF line ends only; dot-stuffing is the session's. ``sound`` says that this is
    known of it, having just been made so by ``render``: else each byte is looked at.
    """

    mail_from: str
    rcpt_to: str
    content: bytes
    sound: bool = False

    @property
    def smtputf8(self) -> bool:
        """Whether only a relay with SMTPUTF8 can take it (RFC 6531).

        Bodies are always encoded: octets beyond ASCII are addresses in the header
        (RFC 6532), of whichever recipient.
        """
        addresses = self.mail_from.isascii() and self.rcpt_to.isascii()
        return not (addresses and self.content.isascii())


class Claim(Value, frozen=True):
    """One recipient that this process, and no other, may now send to.

    ``token`` fences every later write about it. ``attempts`` counts the
    conversations before this one; ``claims`` includes this claim. ``stored`` are
    the bytes of an earlier attempt, when there was one. ``unread`` is the size of the
    files that the letter lacks yet, or of such earlier bytes (``rendered``): too much to be
    read for every claim at once.
    """

    recipient_id: int
    token: int
    message_id: int
    producer: str
    stream: str
    lane: Lane
    relay: str
    address: Address
    letter: Letter
    mail_from: str
    accepted_at: int
    attempts: int
    claims: int
    expires_at: int | None = None
    sensitive: bool = False
    stored: bytes | None = None
    traceparent: str | None = None
    unread: int = 0
    rendered: bool = False
