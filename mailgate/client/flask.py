"""Flask's mail through mailgate, in the manner of Flask-Mail: ``mail = Mail(app)``.

Owns ``Mail``, its ``Message`` and ``record_messages``. Configuration of the app:
``MAILGATE_URL``, ``MAILGATE_PRODUCER``, ``MAILGATE_STREAM``, ``MAILGATE_OPTIONS`` (those of
``Client``), and Flask-Mail's ``MAIL_DEFAULT_SENDER``, ``MAIL_SUPPRESS_SEND``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formataddr
from typing import TYPE_CHECKING, Any

from blinker import Namespace
from flask import Flask, current_app

from mailgate.client import capture
from mailgate.client.client import Client, Receipt
from mailgate.client.default import default_client
from mailgate.client.errors import InvalidMessage
from mailgate.client.letters import compose, files, refuse
from mailgate.client.message import Message as Document

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

#: Sent by the app, with ``message``, after each message that was published or suppressed.
email_dispatched = Namespace().signal("email-dispatched")

Who = str | tuple[str, str]


class BadHeaderError(InvalidMessage):
    """A line break in what becomes a header."""


@dataclass
class Attachment:
    """A file, in Flask-Mail's order."""

    filename: str | None = None
    content_type: str | None = None
    data: bytes | str | None = None
    disposition: str = "attachment"
    headers: dict[str, str] = field(default_factory=dict)


class Message:
    """A mail as Flask-Mail has it; what follows ``extra_headers`` is mailgate's own."""

    def __init__(
        self,
        subject: str = "",
        recipients: Sequence[Who] | None = None,
        body: str | None = None,
        html: str | None = None,
        alts: dict[str, str] | None = None,
        sender: Who | None = None,
        cc: Sequence[Who] | None = None,
        bcc: Sequence[Who] | None = None,
        attachments: Sequence[Attachment] | None = None,
        reply_to: Who | None = None,
        date: float | None = None,
        charset: str | None = None,
        extra_headers: dict[str, str] | None = None,
        mail_options: Sequence[str] | None = None,
        rcpt_options: Sequence[str] | None = None,
        *,
        template: str | None = None,
        data: dict[str, Any] | None = None,
        send_at: datetime | str | None = None,
        **fields: Any,
    ) -> None:
        self.subject = subject
        self.recipients = list(recipients or [])
        self.body = body
        self.html = html
        self.alts = dict(alts or {})
        self.sender = sender
        self.cc = list(cc or [])
        self.bcc = list(bcc or [])
        self.attachments = list(attachments or [])
        self.reply_to = reply_to
        self.extra_headers = dict(extra_headers or {})
        own = {"template": template, "data": data, "send_at": send_at, **fields}
        self.mailgate = {name: value for name, value in own.items() if value is not None}

    @property
    def send_to(self) -> set[str]:
        """Everybody who gets it."""
        return {_text(one) for one in (*self.recipients, *self.cc, *self.bcc)}

    def add_recipient(self, recipient: Who) -> None:
        self.recipients.append(recipient)

    def attach(
        self,
        filename: str | None = None,
        content_type: str | None = None,
        data: bytes | str | None = None,
        disposition: str = "attachment",
        headers: dict[str, str] | None = None,
    ) -> None:
        made = Attachment(filename, content_type, data, disposition, headers or {})
        self.attachments.append(made)

    def send(self, connection: Mail) -> Receipt | None:
        """``connection.send(message)``."""
        return connection.send(self)

    def documents(self, sender: Who | None, stream: str | None) -> list[Document]:
        """What it becomes. Raises ``InvalidMessage``."""
        said = (self.subject, *map(_text, self.recipients), *self.extra_headers.values())
        if any("\n" in one or "\r" in one for one in said):
            raise BadHeaderError(refuse("subject", "must be one line, as all headers").faults)
        html = self.html or self.alts.get("html")
        if other := self.alts.keys() - {"html"}:
            raise refuse("alts", f"cannot hold {min(other)}: only html beside the text")
        chosen = self.sender or sender
        more = self.mailgate
        if stream and "stream" not in more:
            more = {**more, "stream": stream}
        attached = []
        for n, one in enumerate(self.attachments, 1):
            made = files(one.filename, one.data or b"", one.content_type, n)
            low = {k.lower(): v for k, v in one.headers.items()}
            attached.append(
                type(made)(
                    made.filename,
                    made.content,
                    made.content_type,
                    low.get("content-id", "").strip("<>") or None,
                )
            )
        return compose(
            subject=self.subject,
            from_=_text(chosen) if chosen else None,
            to=list(map(_text, self.recipients)),
            cc=list(map(_text, self.cc)),
            bcc=list(map(_text, self.bcc)),
            reply_to=[_text(self.reply_to)] if self.reply_to else (),
            text=self.body,
            html=html,
            attachments=attached,
            headers=self.extra_headers,
            more=more,
        )


class Mail:
    """The extension. In tests (``TESTING``) nothing is published unless you say so."""

    def __init__(self, app: Flask | None = None) -> None:
        self.app = app
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        app.config.setdefault("MAIL_SUPPRESS_SEND", app.testing)
        app.config.setdefault("MAIL_DEFAULT_SENDER", None)
        app.config.setdefault("MAILGATE_STREAM", None)
        app.extensions["mail"] = _State(app)

    def send(self, message: Message) -> Receipt | None:
        """Publish; None when sending is suppressed. Raises ``MailgateError``."""
        return self._state().send(message)

    def send_message(self, *args: Any, **kwargs: Any) -> Receipt | None:
        """``send(Message(…))``."""
        return self.send(Message(*args, **kwargs))

    @property
    def client(self) -> Client:
        """What publishes for the app: to ask, cancel and wait, and for its events."""
        return self._state().client()

    @contextmanager
    def connect(self) -> Iterator[Mail]:
        """For programs that keep a connection over many messages: here every call does."""
        yield self

    @contextmanager
    def record_messages(self) -> Iterator[list[Message]]:
        """The messages that are sent meanwhile, for tests."""
        outbox: list[Message] = []

        def record(app: Flask, message: Message, **more: Any) -> None:
            outbox.append(message)

        with email_dispatched.connected_to(record):
            yield outbox

    def __enter__(self) -> Mail:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def _state(self) -> _State:
        app = self.app or current_app._get_current_object()  # type: ignore[attr-defined]
        state: _State = app.extensions["mail"]
        return state


class _State:
    """What belongs to one app: its configuration, and the client made from it."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._client: Client | None = None

    def send(self, message: Message) -> Receipt | None:
        config = self._app.config
        made = message.documents(config["MAIL_DEFAULT_SENDER"], config["MAILGATE_STREAM"])
        if config["MAIL_SUPPRESS_SEND"] and capture.current() is None:
            # Still checked, so that a test finds what production would refuse.
            with capture.captured():
                for one in made:
                    self.client().publish(one)
            receipts: list[Receipt] = []
        else:
            receipts = [self.client().publish(one) for one in made]
        email_dispatched.send(self._app, message=message)
        return receipts[0] if receipts else None

    def client(self) -> Client:
        if self._client is None:
            url = self._app.config.get("MAILGATE_URL")
            if not url:
                return default_client()
            self._client = Client(
                url,
                producer=self._app.config.get("MAILGATE_PRODUCER"),
                **self._app.config.get("MAILGATE_OPTIONS", {}),
            )
        return self._client


def _text(who: Who) -> str:
    return who if isinstance(who, str) else formataddr(who, "utf-8")
