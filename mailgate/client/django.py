"""Django's mail through mailgate: ``EMAIL_BACKEND = "mailgate.client.django.EmailBackend"``.

Owns the translation of ``EmailMessage``. ``send_mail()``, ``mail_admins()``, password
resets and ``AdminEmailHandler`` work unchanged. Settings: ``MAILGATE_URL``,
``MAILGATE_PRODUCER``, ``MAILGATE_STREAM``, ``MAILGATE_ON_COMMIT`` and
``MAILGATE_OPTIONS`` (those of ``Client``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from email.mime.base import MIMEBase
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend

from mailgate.client.client import Client
from mailgate.client.default import default_client
from mailgate.client.errors import InvalidMessage, MailgateError
from mailgate.client.letters import compose, files, part, refuse
from mailgate.client.message import Attachment, Message

if django.VERSION < (6, 0):
    from django.core.mail import BadHeaderError
else:  # there it is a ValueError, as ours is
    BadHeaderError = ValueError

_log = logging.getLogger(__name__)
_clients: dict[str, Client] = {}


class BadHeader(InvalidMessage, BadHeaderError):  # type: ignore[misc]
    """A line break in what becomes a header; views that catch Django's own catch it too."""


def client() -> Client:
    """The client that the settings describe; one a process."""
    url = getattr(settings, "MAILGATE_URL", None)
    if not url:
        try:
            return default_client()
        except RuntimeError:
            raise ImproperlyConfigured("MAILGATE_URL says where the broker is") from None
    options = {
        "producer": getattr(settings, "MAILGATE_PRODUCER", None),
        **getattr(settings, "MAILGATE_OPTIONS", {}),
    }
    key = f"{url} {sorted(options.items())}"
    if key not in _clients:
        _clients[key] = Client(url, **options)
    return _clients[key]


def messages(mail: Any) -> list[Message]:
    """What an ``EmailMessage`` becomes. Raises ``InvalidMessage`` for what has no place there.

    A dict in its attribute ``mailgate`` adds fields of the contract: ``{"stream": "codes"}``,
    ``{"template": "welcome", "data": {…}}``.
    """
    for name in ("subject", "from_email", "to", "cc", "bcc", "reply_to", "extra_headers"):
        _one_line(name, getattr(mail, name))
    text: str | None = str(mail.body)
    html: str | None = None
    if mail.content_subtype == "html":
        text, html = None, text
    elif mail.content_subtype != "plain":
        raise refuse("content_subtype", "must be plain or html")
    for content, kind in getattr(mail, "alternatives", ()):
        if kind == "text/html" and html is None:
            html = str(content)
        elif kind == "text/plain" and not text:
            text = str(content)
        else:
            raise refuse("alternatives", "must be one text/html beside the text")
    more = dict(getattr(mail, "mailgate", None) or {})
    stream = getattr(settings, "MAILGATE_STREAM", None)
    if stream and "stream" not in more:
        more["stream"] = stream
    return compose(
        subject=str(mail.subject),
        from_=str(mail.from_email),
        to=list(map(str, mail.to)),
        cc=list(map(str, mail.cc)),
        bcc=list(map(str, mail.bcc)),
        reply_to=list(map(str, mail.reply_to)),
        text=text,
        html=html,
        attachments=[_file(one, n) for n, one in enumerate(mail.attachments, 1)],
        headers=mail.extra_headers,
        more=more,
    )


class EmailBackend(BaseEmailBackend):  # type: ignore[misc]
    """Publishes instead of speaking SMTP. Nothing is opened, and nothing is left open."""

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        """How many the broker has taken.

        With ``MAILGATE_ON_COMMIT`` what is sent inside a transaction is checked now and
        published once it has committed; after a rollback it never was.
        """
        sent = 0
        for mail in email_messages:
            if not mail.recipients():
                continue
            try:
                self._send(mail)
            except MailgateError:
                if not self.fail_silently:
                    raise
                _log.warning("a mail was not published", exc_info=True)
            else:
                sent += 1
        return sent

    def _send(self, mail: Any) -> None:
        mine = client()
        made = messages(mail)
        if not (getattr(settings, "MAILGATE_ON_COMMIT", False) and _in_transaction()):
            for one in made:
                mine.publish(one)
            return
        from django.db import transaction

        bodies = [mine.prepare(one) for one in made]

        def publish() -> None:
            for body, key in bodies:
                mine.publish_raw(body, idempotency_key=key)

        transaction.on_commit(publish, robust=self.fail_silently)


def _in_transaction() -> bool:
    from django.db import connection

    return bool(connection.in_atomic_block)


def _file(one: Any, n: int) -> Attachment:
    if isinstance(one, MIMEBase):
        return part(one, n)
    filename, content, kind = one
    if hasattr(content, "message"):  # an EmailMessage of Django's, to be forwarded
        content = content.message()
    return files(filename, content, kind, n)


def _one_line(name: str, value: Any) -> None:
    values = value.items() if isinstance(value, dict) else value
    for one in [values] if isinstance(values, str) or not hasattr(values, "__iter__") else values:
        for text in one if isinstance(one, tuple) else (one,):
            if "\n" in str(text) or "\r" in str(text):
                raise BadHeader(refuse(name, "must be one line").faults)
