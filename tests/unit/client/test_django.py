"""Django's mail, unchanged, through the e-mail backend."""

from __future__ import annotations

import logging
from base64 import b64decode
from email.mime.image import MIMEImage
from typing import Any

import pytest
from django.core import mail
from django.core.mail import (
    BadHeaderError,
    EmailMessage,
    EmailMultiAlternatives,
    get_connection,
    mail_admins,
    send_mail,
    send_mass_mail,
)
from django.db import transaction
from django.test.utils import override_settings

from mailgate.client import InvalidMessage, NotPublished
from mailgate.client.capture import Outbox


def test_send_mail(mailgate_outbox: Outbox) -> None:
    sent = send_mail(
        "Hello", "Text", "Shop <shop@example.com>", ["ann@example.com"], html_message="<p>Hi</p>"
    )
    assert sent == 1
    [one] = mailgate_outbox
    assert one.document == {
        "version": 1,
        "producer": "shop",
        "from": {"email": "shop@example.com", "name": "Shop"},
        "to": ["ann@example.com"],
        "subject": "Hello",
        "text": "Text",
        "html": "<p>Hi</p>",
        "idempotency_key": one.idempotency_key,
    }


def test_everything_that_an_email_message_can_say(mailgate_outbox: Outbox) -> None:
    message = EmailMultiAlternatives(
        "Grüße",
        "Text",
        "shop@example.com",
        to=["Müller, Ann <ann@example.com>".replace("Müller, Ann", '"Müller, Ann"')],
        cc=["=?utf-8?q?B=C3=B6b?= <bob@example.com>"],
        bcc=["eve@example.com"],
        reply_to=["help@example.com"],
        headers={
            "X-Order": "4711",
            "Message-ID": "<1@example.com>",
            "Date": "Thu, 1 Jan 2026 00:00:00 +0000",
            "From": "Other <other@example.com>",
            "List-Unsubscribe": "<mailto:bye@example.com>, <https://example.com/bye>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
    )
    message.attach_alternative("<p>Hi</p>", "text/html")
    message.attach("a.csv", "a;b\nü", "text/csv")
    message.attach("b.pdf", b"%PDF", "application/pdf")
    image = MIMEImage(b"\x89PNG", _subtype="png")
    image.add_header("Content-ID", "<logo>")
    message.attach(image)
    message.attach(None, EmailMessage("Inner", "Text", to=["a@example.com"]), "message/rfc822")
    message.mailgate = {"tags": ["order"], "stream": "transactional"}
    assert message.send() == 1
    [one] = mailgate_outbox
    assert one["from"] == {"email": "other@example.com", "name": "Other"}
    assert one["to"] == [{"email": "ann@example.com", "name": "Müller, Ann"}]
    assert one["cc"] == [{"email": "bob@example.com", "name": "Böb"}]
    assert (one["bcc"], one["reply_to"]) == (["eve@example.com"], ["help@example.com"])
    assert one["headers"] == {"X-Order": "4711"}
    assert one["unsubscribe"] == {"url": "https://example.com/bye", "one_click": True}
    assert (one["tags"], one["stream"]) == (["order"], "transactional")
    files: list[dict[str, Any]] = one["attachments"]
    assert [f["filename"] for f in files] == [
        "a.csv",
        "b.pdf",
        "attachment-3.png",
        "message-4.eml",
    ]
    assert b64decode(files[0]["content"]).decode() == "a;b\nü"
    assert files[2]["content_id"] == "logo"
    assert b"Subject: Inner" in b64decode(files[3]["content"])


def test_admins_hear_of_errors_whatever_server_email_is(mailgate_outbox: Outbox) -> None:
    """Django's default senders are at localhost, where no relay takes mail from."""
    mail_admins("Broken", "Traceback")
    [one] = mailgate_outbox
    assert one["subject"] == "[Django] Broken"
    assert one["to"] == ["ann@example.com"]
    assert one.get("from") is None


def test_admin_email_handler(mailgate_outbox: Outbox) -> None:
    from django.utils.log import AdminEmailHandler

    log = logging.getLogger("test.django")
    handler = AdminEmailHandler(include_html=True)
    log.addHandler(handler)
    try:
        log.error("the\nroof is on fire", exc_info=ValueError("smoke"))
    finally:
        log.removeHandler(handler)
    [one] = mailgate_outbox
    assert "the\\nroof is on fire" in one["subject"]
    assert "smoke" in one["text"]
    assert "<html" in one["html"]


def test_a_password_reset_works_unchanged(mailgate_outbox: Outbox, django_database: None) -> None:
    from django.contrib.auth.forms import PasswordResetForm
    from django.contrib.auth.models import User

    User.objects.create_user("ann", "ann@example.com", "secret")
    form = PasswordResetForm({"email": "ann@example.com"})
    assert form.is_valid()
    folder = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    with override_settings(TEMPLATES=folder, ROOT_URLCONF="django.contrib.auth.urls"):
        form.save(
            domain_override="example.com",
            email_template_name="registration/password_reset_subject.txt",
        )
    [one] = mailgate_outbox
    assert one["subject"] == "Password reset on example.com"
    assert one["to"] == ["ann@example.com"]


def test_blind_copies_alone_are_private_messages(mailgate_outbox: Outbox) -> None:
    everyone = [f"a{n}@example.com" for n in range(1500)]
    assert EmailMessage("Hello", "Text", bcc=everyone).send() == 1
    assert [len(one["recipients"]) for one in mailgate_outbox] == [1000, 500]
    mailing = EmailMessage("Hello", "Text", bcc=everyone)
    mailing.mailgate = {"idempotency_key": "may"}
    mailing.send()
    assert [one.idempotency_key for one in mailgate_outbox[2:]] == ["may", "may-1"]
    assert EmailMessage("Hello", "Text", cc=["ann@example.com"]).send() == 1
    assert mailgate_outbox[-1]["to"] == ["ann@example.com"]


def test_empty_subjects_and_bodies_are_sent(mailgate_outbox: Outbox) -> None:
    assert send_mail("", "", "shop@example.com", ["ann@example.com"]) == 1


def test_html_alone(mailgate_outbox: Outbox) -> None:
    message = EmailMessage("Hello", "<p>Hi</p>", to=["ann@example.com"])
    message.content_subtype = "html"
    message.send()
    [one] = mailgate_outbox
    assert (one["html"], one.get("text")) == ("<p>Hi</p>", None)


def test_a_template_of_mailgates(mailgate_outbox: Outbox) -> None:
    message = EmailMessage(to=["ann@example.com"])
    message.mailgate = {"template": "welcome", "data": {"name": "Ann"}}
    message.send()
    [one] = mailgate_outbox
    assert (one["template"], one.get("subject"), one.get("text")) == ("welcome", None, None)


def test_a_mail_to_nobody_is_none(mailgate_outbox: Outbox) -> None:
    with get_connection() as connection:
        assert connection.send_messages([EmailMessage("Hello", "Text")]) == 0
    assert mailgate_outbox == []


def test_many_mails_and_how_many_of_them_were_sent(mailgate_outbox: Outbox) -> None:
    mails = [("Hello", "Text", "a@example.com", [f"b{n}@example.com"]) for n in range(3)]
    mails[1] = ("Hello", "Text", "a@example.com", ["nobody"])
    assert send_mass_mail(mails, fail_silently=True) == 2
    with pytest.raises(InvalidMessage, match=r"to\[0\]: must be one email address"):
        send_mass_mail(mails)


@pytest.mark.parametrize(
    "broken",
    [
        {"subject": "Hello\nBcc: eve@example.com"},
        {"to": ["ann@example.com\nBcc: eve@example.com"]},
        {"headers": {"X-A": "b\r\nc"}},
    ],
)
def test_a_line_break_in_a_header_is_djangos_own_error(mailgate_outbox: Outbox, broken) -> None:
    said = {"subject": "Hello", "body": "Text", "to": ["ann@example.com"], **broken}
    with pytest.raises(BadHeaderError):
        EmailMessage(**said).send()
    assert mailgate_outbox == []


def test_an_alternative_that_no_contract_has_is_refused(mailgate_outbox: Outbox) -> None:
    message = EmailMultiAlternatives("Hello", "Text", to=["ann@example.com"])
    message.attach_alternative("BEGIN:VCALENDAR", "text/calendar")
    with pytest.raises(InvalidMessage, match="alternatives"):
        message.send()


def test_a_broker_that_is_away_is_an_error_or_silence() -> None:
    options = {"deadline": 0.0, "timeout": 0.2}
    with override_settings(
        EMAIL_BACKEND="mailgate.client.django.EmailBackend",
        MAILGATE_URL="redis://127.0.0.1:1",
        MAILGATE_OPTIONS=options,
    ):
        said = ("Hello", "Text", "a@example.com", ["ann@example.com"])
        assert send_mail(*said, fail_silently=True) == 0
        with pytest.raises(NotPublished):
            send_mail(*said)


def test_mail_goes_at_once_or_after_the_commit(
    mailgate_outbox: Outbox, django_database: None
) -> None:
    said = ("Hello", "Text", "a@example.com", ["ann@example.com"])
    with transaction.atomic():
        send_mail(*said)
        assert len(mailgate_outbox) == 1  # as SMTP would
    with override_settings(MAILGATE_ON_COMMIT=True):
        send_mail(*said)
        assert len(mailgate_outbox) == 2  # no transaction, no waiting
        with transaction.atomic():
            assert send_mail(*said) == 1
            assert len(mailgate_outbox) == 2
            with pytest.raises(InvalidMessage):  # what is wrong shows where it was written
                send_mail("Hello", "Text", "a@example.com", ["nobody"])
        assert len(mailgate_outbox) == 3
        with transaction.atomic():
            send_mail(*said)
            transaction.set_rollback(True)
        assert len(mailgate_outbox) == 3


def test_the_outbox_takes_the_place_of_the_test_runners_own(mailgate_outbox: Outbox) -> None:
    send_mail("Hello", "Text", "a@example.com", ["ann@example.com"])
    assert len(mailgate_outbox) == 1
    assert getattr(mail, "outbox", []) == []
