"""Flask's mail, in Flask-Mail's manner."""

from __future__ import annotations

import pytest
from flask import Flask

from mailgate.client import InvalidMessage, captured
from mailgate.client.capture import Outbox
from mailgate.client.flask import Attachment, BadHeaderError, Mail, Message


@pytest.fixture
def app() -> Flask:
    made = Flask("shop")
    made.config.update(
        MAILGATE_URL="redis://nowhere.invalid",
        MAILGATE_PRODUCER="shop",
        MAIL_DEFAULT_SENDER=("Shop", "shop@example.com"),
    )
    return made


def test_a_message_as_flask_mail_has_it(app: Flask, mailgate_outbox: Outbox) -> None:
    mail = Mail(app)
    message = Message(
        "Hello",
        recipients=["ann@example.com", ("Bob, B.", "bob@example.com")],
        body="Text",
        html="<p>Hi <img src='cid:logo'></p>",
        cc=["cc@example.com"],
        bcc=["bcc@example.com"],
        reply_to="help@example.com",
        extra_headers={"X-Order": "4711"},
        attachments=[Attachment("a.txt", "text/plain", "ü")],
        send_at="2030-01-01T00:00:00Z",
    )
    message.attach("logo.png", "image/png", b"\x89PNG", headers={"Content-ID": "<logo>"})
    message.add_recipient("eve@example.com")
    receipt = mail.send(message)
    [one] = mailgate_outbox
    assert receipt is not None
    assert receipt.idempotency_key == one.idempotency_key
    assert one["from"] == {"email": "shop@example.com", "name": "Shop"}
    assert one["to"] == [
        "ann@example.com",
        {"email": "bob@example.com", "name": "Bob, B."},
        "eve@example.com",
    ]
    assert (one["cc"], one["bcc"]) == (["cc@example.com"], ["bcc@example.com"])
    assert one["reply_to"] == ["help@example.com"]
    assert (one["producer"], one["send_at"]) == ("shop", "2030-01-01T00:00:00Z")
    assert [f.get("content_id") for f in one["attachments"]] == [None, "logo"]
    assert one["headers"] == {"X-Order": "4711"}


def test_the_factory_pattern_and_templates(app: Flask, mailgate_outbox: Outbox) -> None:
    mail = Mail()
    mail.init_app(app)
    with app.app_context(), mail.connect() as connection:
        connection.send_message(
            recipients=["ann@example.com"], template="welcome", data={"name": "Ann"}
        )
    [one] = mailgate_outbox
    assert (one["template"], one["data"]) == ("welcome", {"name": "Ann"})
    assert one.get("subject") is None


def test_an_app_under_test_publishes_nothing_and_records_all(app: Flask) -> None:
    app.testing = True
    mail = Mail(app)
    with mail.record_messages() as outbox:
        assert mail.send(Message("Hello", ["ann@example.com"], "Text")) is None
    assert [m.subject for m in outbox] == ["Hello"]
    with pytest.raises(InvalidMessage):  # what production would refuse, tests find
        mail.send(Message("Hello", ["ann"], "Text"))


def test_what_is_kept_for_tests_wins_over_suppression(app: Flask) -> None:
    app.testing = True
    with captured() as outbox:
        assert Mail(app).send(Message("Hello", ["ann@example.com"], "Text")) is not None
    assert len(outbox) == 1


@pytest.mark.parametrize(
    "message",
    [
        Message("Hello\nBcc: eve@example.com", ["ann@example.com"], "Text"),
        Message("Hello", ["ann@example.com\r\nBcc: eve@example.com"], "Text"),
        Message("Hello", ["ann@example.com"], "Text", extra_headers={"X-A": "b\nc"}),
    ],
)
def test_a_line_break_in_a_header_is_refused(app: Flask, message: Message) -> None:
    app.testing = True
    with pytest.raises(BadHeaderError):
        Mail(app).send(message)


def test_a_mail_to_nobody_is_refused(app: Flask) -> None:
    app.testing = True
    with pytest.raises(InvalidMessage, match="to: is required"):
        Mail(app).send(Message("Hello", body="Text"))
