"""What the size tab says."""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP

from mailgate.studio.measure import measure


def test_parts_are_counted_as_they_are_read_and_as_they_are_sent():
    message = EmailMessage()
    message["Subject"] = "Size"
    message.set_content("Grüße\n" * 10, cte="quoted-printable")
    message.add_alternative("<p>" + "ü" * 1000, subtype="html", cte="base64")
    message.add_attachment(b"\0" * 300, "application", "pdf", filename="a.pdf")
    content = message.as_bytes(policy=SMTP)
    found = measure(content)
    assert found["mail"] == len(content)
    assert found["text"] == 10 * len("Grüße\r\n".encode())
    assert found["html"] == len(("<p>" + "ü" * 1000 + "\n").encode())
    text, html, pdf = found["parts"]
    assert (text["type"], text["encoding"]) == ("text/plain", "quoted-printable")
    assert text["wire"] == 10 * len("Gr=C3=BC=C3=9Fe\r\n")
    assert html["wire"] > html["bytes"] * 4 / 3
    assert (pdf["type"], pdf["name"], pdf["bytes"]) == ("application/pdf", "a.pdf", 300)
    assert sum(part["wire"] for part in found["parts"]) < found["mail"]


def test_attached_html_is_no_part_of_what_is_clipped():
    message = EmailMessage()
    message.set_content("x\n")
    message.add_attachment("<p>" * 1000, subtype="html", filename="report.html")
    assert measure(message.as_bytes(policy=SMTP))["html"] == 0
