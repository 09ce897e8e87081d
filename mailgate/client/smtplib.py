"""A stand-in for ``smtplib.SMTP``: ``from mailgate.client.smtplib import SMTP``.

Owns the methods by which programs send; what they say to a server (EHLO, STARTTLS, AUTH)
does nothing. A message is published whole or not at all, so no recipient is refused alone.
"""

from __future__ import annotations

import email
import email.policy
import smtplib
from collections.abc import Sequence
from email.message import Message as Mime
from typing import TYPE_CHECKING, Any

from mailgate.client.client import Client
from mailgate.client.default import default_client
from mailgate.client.errors import MailgateError
from mailgate.client.letters import from_mime, sender

if TYPE_CHECKING:
    from types import TracebackType


class NotSent(smtplib.SMTPException):
    """The broker did not take it, or it breaks the contract; the cause says which."""


class SMTP:
    """Takes mail as smtplib's does and publishes it.

    ``host`` may be the URL of a broker; any other host, the port and all else are
    passed over, and the default client publishes.
    """

    def __init__(
        self, host: str = "", port: int = 0, *args: Any, client: Client | None = None, **kwargs: Any
    ) -> None:
        if client is None and "://" in host:
            client = Client(host)
        self._client = client

    def send_message(
        self,
        msg: Mime,
        from_addr: str | None = None,
        to_addrs: str | Sequence[str] | None = None,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, tuple[int, bytes]]:
        """Publish a message object. Raises ``NotSent``, which is an ``SMTPException``."""
        everyone = [to_addrs] if isinstance(to_addrs, str) else to_addrs
        try:
            for one in from_mime(msg, everyone):
                if one.sender is None and from_addr:
                    one.sender = sender(from_addr)
                (self._client or default_client()).publish(one)
        except MailgateError as error:
            raise NotSent(str(error)) from error
        return {}

    def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Sequence[str],
        msg: str | bytes,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, tuple[int, bytes]]:
        """Publish a message that was written out; ``to_addrs`` says who gets it."""
        raw = msg.encode() if isinstance(msg, str) else msg
        parsed = email.message_from_bytes(raw, policy=email.policy.default)
        return self.send_message(parsed, from_addr, to_addrs)

    def connect(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        return 220, b"mailgate"

    def login(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        return 235, b"not needed"

    def quit(self) -> tuple[int, bytes]:
        return 221, b"bye"

    def _nothing(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        return 250, b"ok"

    ehlo = helo = starttls = noop = rset = _nothing

    def ehlo_or_helo_if_needed(self) -> None:
        pass

    def set_debuglevel(self, level: int) -> None:
        pass

    def close(self) -> None:
        pass

    def __enter__(self) -> SMTP:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class SMTP_SSL(SMTP):
    """The same; what goes to the broker is protected as its URL says."""
