"""Envelope senders that name their recipient: a bounce tells by itself whose it is.

Owns the spelling, ``bounces+<recipient><signature>@domain`` (VERP, variable envelope
return paths), in both directions. The signature is keyed, so that nobody makes up
bounces for addresses of their choice; no address stands in it. Pure.
"""

from __future__ import annotations

import hashlib
import hmac

from mailgate.model.ids import spell, unspell

#: RFC 5321 section 4.5.3.1.1: octets before the @-sign.
_LOCAL = 64
#: Characters of an identifier, and so of a signature of 63 bits.
_ID = 13
#: The longest local part that leaves room for "+", identifier and signature.
LONGEST = _LOCAL - 1 - 2 * _ID


def bounce_address(envelope_from: str, recipient_id: int, key: bytes) -> str:
    """``envelope_from`` with the recipient in it; its local part has at most ``LONGEST`` octets."""
    local, _, domain = envelope_from.rpartition("@")
    return f"{local}+{spell(recipient_id)}{_signature(local, domain, recipient_id, key)}@{domain}"


def recipient_of(address: str, key: bytes) -> int | None:
    """The recipient that ``bounce_address`` wrote into an address, or None when it did not.

    Letters of either case will do: systems on the way change them.
    """
    whole, _, domain = address.rpartition("@")
    local, _, said = whole.rpartition("+")
    if len(said) != 2 * _ID:
        return None
    try:
        recipient_id, signature = unspell(said[:_ID]), spell(unspell(said[_ID:]))
    except ValueError:
        return None
    expected = _signature(local, domain, recipient_id, key)
    return recipient_id if hmac.compare_digest(signature, expected) else None


def _signature(local: str, domain: str, recipient_id: int, key: bytes) -> str:
    text = f"verp\0{local.lower()}\0{domain.lower()}\0{recipient_id}"
    digest = hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return spell(int.from_bytes(digest[:8]) >> 1)
