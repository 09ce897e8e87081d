"""Programs written for logging's SMTPHandler and for smtplib."""

from __future__ import annotations

import logging
import smtplib
from base64 import b64decode
from email.message import EmailMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest

from mailgate.client.capture import Outbox
from mailgate.client.logging import MailHandler
from mailgate.client.smtplib import SMTP, SMTP_SSL


@pytest.fixture
def log() -> logging.Logger:
    return logging.Logger("shop")


def test_records_become_mail(log: logging.Logger, mailgate_outbox: Outbox) -> None:
    handler = MailHandler(None, ["ops@example.com"], "Shop: trouble", throttle="10m")
    log.addHandler(handler)
    log.warning("not this")
    try:
        raise ValueError("smoke")
    except ValueError:
        log.exception("the roof is on fire")
    [one] = mailgate_outbox
    assert (one["subject"], one["to"]) == ("Shop: trouble", ["ops@example.com"])
    assert "ValueError: smoke" in one["text"]
    assert one["throttle"]["key"].startswith("log shop test_drop_ins.py:")
    assert (one["throttle"]["window"], one["throttle"]["on_limit"]) == ("10m", "drop")


def test_a_template_gets_the_record_where_the_program_says(
    log: logging.Logger, mailgate_outbox: Outbox
) -> None:
    class Own(MailHandler):
        def getSubject(self, record: logging.LogRecord) -> str:
            return f"{record.levelname}:\n{record.getMessage()}"

    log.addHandler(Own("shop@example.com", "ops@example.com", "", fields={"stream": "alerts"}))
    log.critical("fire")
    [one] = mailgate_outbox
    assert (one["subject"], one["stream"]) == ("CRITICAL: fire", "alerts")


def test_a_broker_that_is_away_never_breaks_the_program(
    log: logging.Logger, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("mailgate.client.logging.DEADLINE", 0.1)
    log.addHandler(MailHandler(None, "ops@example.com", "Trouble", url="redis://127.0.0.1:1"))
    log.error("fire")
    assert "NotPublished" in capsys.readouterr().err


def test_the_client_logs_no_mail_about_itself(mailgate_outbox: Outbox) -> None:
    log = logging.Logger("mailgate.client.django")
    log.addHandler(MailHandler(None, "ops@example.com", "Trouble"))
    log.error("not published")
    assert mailgate_outbox == []


def test_a_program_written_for_smtplib(mailgate_outbox: Outbox) -> None:
    message = EmailMessage()
    message["Subject"] = "Grüße"
    message["From"] = "Shop <shop@example.com>"
    message["To"] = "Ann <ann@example.com>, bob@example.com"
    message["Bcc"] = "eve@example.com"
    message["X-Order"] = "4711"
    message.set_content("Text ü")
    message.add_alternative("<p>Hi</p>", subtype="html")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="a.pdf")
    with SMTP("smtp.example.com", 587) as smtp:
        smtp.ehlo()
        smtp.starttls()
        smtp.login("user", "password")
        assert smtp.send_message(message) == {}
    [one] = mailgate_outbox
    assert one["from"] == {"email": "shop@example.com", "name": "Shop"}
    assert one["to"] == [{"email": "ann@example.com", "name": "Ann"}, "bob@example.com"]
    assert one["bcc"] == ["eve@example.com"]
    assert (one["subject"], one["text"].strip(), one["html"].strip()) == (
        "Grüße",
        "Text ü",
        "<p>Hi</p>",
    )
    assert one["headers"] == {"X-Order": "4711"}
    assert b64decode(one["attachments"][0]["content"]) == b"%PDF"


def test_the_envelope_says_who_gets_it(mailgate_outbox: Outbox) -> None:
    message = MIMEMultipart()
    message["Subject"] = "=?utf-8?q?Gr=C3=BC=C3=9Fe?="
    message["To"] = "ann@example.com, other@example.com"
    message.attach(MIMEText("Text"))
    smtp = SMTP_SSL("smtp.example.com")
    smtp.sendmail("shop@example.com", ["ann@example.com", "eve@example.com"], message.as_string())
    smtp.quit()
    [one] = mailgate_outbox
    assert (one["to"], one["bcc"]) == (["ann@example.com"], ["eve@example.com"])
    assert (one["from"], one["subject"]) == ("shop@example.com", "Grüße")


def test_what_goes_wrong_is_an_smtp_exception(mailgate_outbox: Outbox) -> None:
    with pytest.raises(smtplib.SMTPException, match="one email address"):
        SMTP().sendmail("shop@example.com", "nobody", "Subject: Hello\n\nText")
