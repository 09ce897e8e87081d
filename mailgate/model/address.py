"""One wire address.

Owns the only way from what a producer wrote to the address that goes onto the
wire and into the journal: the two are always the same string.
Never looks anything up in DNS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: Plain ASCII dot-atom at an LDH host name with at least one dot. What matches
#: needs no library; everything else is handed to email-validator.
_PLAIN = re.compile(
    r"(?=.{3,254}\Z)"
    r"([A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*)"
    r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)\Z"
)


class AddressError(ValueError):
    """The text is not one address that can go onto the wire; says which rule it breaks."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address in wire form: local part as written, domain lower-case in A-labels.

    ``smtputf8`` is true when the local part is not ASCII, so that only a relay
    that offers SMTPUTF8 (RFC 6531) can take it.
    """

    email: str
    name: str = ""

    @property
    def local(self) -> str:
        return self.email.rpartition("@")[0]

    @property
    def domain(self) -> str:
        return self.email.rpartition("@")[2]

    @property
    def smtputf8(self) -> bool:
        return not self.email.isascii()

    @property
    def folded(self) -> str:
        """The form by which throttles and suppressions know the address: case-folded."""
        return self.email.casefold()


# For senders, which come with each message. Recipients seldom come again soon; many of them
# kept, each for a while, would hold the pages of every burst.
@lru_cache(maxsize=1024)
def wire_form(text: str) -> str:
    """Return ``text`` as one wire address.

    Raises ``AddressError`` when it is not exactly one bare address (RFC 5321
    section 4.1.2): no display name, comment, list, quoted local part, address
    literal, or host without a dot.
    """
    plain = _PLAIN.match(text)
    if plain is not None and "--" not in plain[2] and len(plain[1]) <= 64:
        return f"{plain[1]}@{plain[2].lower()}"
    # Here and not above: seldom needed, and half a MiB in each process.
    from email_validator import EmailNotValidError, validate_email

    try:
        found = validate_email(
            text,
            check_deliverability=False,
            allow_smtputf8=True,
            allow_quoted_local=False,
            allow_domain_literal=False,
            # Whether a domain may receive mail is the relay's to say.
            test_environment=True,
        )
    except EmailNotValidError as error:
        raise AddressError(str(error)) from None
    if "." not in found.ascii_domain:
        raise AddressError("The part after the @-sign must be a host name with a dot.")
    local = found.local_part
    wire = f"{local}@{found.ascii_domain.lower()}"
    if len(wire.encode()) > 254 or len(local.encode()) > 64:
        raise AddressError("The email address is too long (RFC 5321 section 4.5.3.1).")
    return wire
