"""What one message says on the wire, and whether this relay can take it at all.

Owns the commands and the dot-stuffing, and judges the replies to them. Pure; the
addresses and the content go out exactly as the envelope holds them, or not at all.
"""

from __future__ import annotations

import re

from mailgate.model.message import Envelope
from mailgate.model.outcome import Outcome, Reply, Scope, deferred, failed
from mailgate.model.state import Phase
from mailgate.smtp.classify import Table
from mailgate.smtp.opening import Offers

#: The phases of the commands before the body, in order.
PHASES = (Phase.MAIL, Phase.RCPT, Phase.DATA)
DOT = b".\r\n"
#: Taken literally between angle brackets, and nothing else.
_LITERAL = re.compile(r"[^\x00-\x20\x7f<>]*\Z")
# Each begins with one literal byte, which `re` finds several times faster than
# `bytes.find` finds two: these three run over every byte of every message.
_BARE_CR = re.compile(rb"\r(?!\n)")
_BARE_LF = re.compile(rb"\n(?<!\r\n)")
_LEADING_DOT = re.compile(rb"\n\.")


def unfit(envelope: Envelope, offers: Offers) -> Outcome | None:
    """Why this relay cannot take this message; None when it can. Costs no command."""
    content = envelope.content
    size = len(content)
    if offers.size and size > offers.size:
        what = f"{size} bytes; the relay takes at most {offers.size} (SIZE, RFC 1870)"
        return _unfit("too_large", what)
    if envelope.smtputf8 and not offers.smtputf8:
        what = "an address is not ASCII and the relay does not offer SMTPUTF8 (RFC 6531)"
        return _unfit("smtputf8_not_offered", what)
    if not content.isascii() and not offers.eight_bit:
        what = "the message is not 7-bit and the relay does not offer 8BITMIME (RFC 6152)"
        return _unfit("8bitmime_not_offered", what)
    # Never rewritten: what is on the wire is what is in the journal.
    if not (_LITERAL.match(envelope.mail_from) and _LITERAL.match(envelope.rcpt_to)):
        what = "an address holds a space, a control character or an angle bracket"
        return _unfit("address_invalid", what)
    # A bare CR or LF is what SMTP smuggling is made of (RFC 5321 section 2.3.8).
    if not content.endswith(b"\r\n") or not (envelope.sound or _even(content)):
        return _unfit("content_invalid", "the content's lines do not all end in CRLF")
    return None


def _even(content: bytes) -> bool:
    """Whether each CR has its LF, and each LF its CR."""
    return _BARE_CR.search(content) is None and _BARE_LF.search(content) is None


def _unfit(error_class: str, what: str) -> Outcome:
    return failed(Phase.MAIL, Reply(0, what), error_class)


def commands(envelope: Envelope, offers: Offers) -> tuple[bytes, bytes, bytes]:
    """MAIL, RCPT and DATA for the envelope, each with its CRLF."""
    size = f" SIZE={len(envelope.content)}" if offers.size_parameter else ""
    body = "" if envelope.content.isascii() else " BODY=8BITMIME"
    utf8 = " SMTPUTF8" if envelope.smtputf8 else ""
    mail = f"MAIL FROM:<{envelope.mail_from}>{size}{body}{utf8}\r\n"
    return mail.encode(), f"RCPT TO:<{envelope.rcpt_to}>\r\n".encode(), b"DATA\r\n"


def stuffed(content: bytes) -> bytes:
    """The content as it goes onto the wire (RFC 5321 section 4.5.2)."""
    if _LEADING_DOT.search(content):
        content = content.replace(b"\n.", b"\n..")
    return b"." + content if content.startswith(b".") else content


def refusal(replies: list[Reply], table: Table) -> Outcome | None:
    """The first reply to MAIL, RCPT, DATA that is not the one hoped for, judged."""
    for phase, reply in zip(PHASES, replies, strict=False):
        wanted = 3 if phase is Phase.DATA else 2
        if reply.code // 100 != wanted:
            return table.classify(phase, reply)
    return None


def in_order(replies: list[Reply]) -> bool:
    """Whether these can be the answers to MAIL, RCPT and DATA, asked together.

    No relay takes a recipient without a sender, and none ends DATA with a yes (RFC 5321
    section 4.3.2): then a reply that nobody asked for stands before them.
    """
    mail, rcpt, data = (reply.code // 100 for reply in replies)
    return data != 2 and (mail == 2 or rcpt != 2)


def early(reply: Reply, table: Table) -> Outcome:
    """A reply that came before the end of the body: a refusal, or out of step."""
    if reply.code >= 400:
        return table.classify(Phase.BODY, reply)
    return deferred(Phase.BODY, reply, "desync", Scope.CONNECTION)
