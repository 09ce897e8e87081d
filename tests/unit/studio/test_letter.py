"""Mails taken apart, however broken or hostile."""

from __future__ import annotations

import pytest

from mailgate.studio.inbox.letter import framed, read, safe_name, summary


def mail(*lines: str) -> bytes:
    return "\r\n".join(lines).encode()


def test_headers_are_decoded_and_unfolded():
    found = summary(
        mail(
            "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=",
            "\t=?iso-8859-1?Q?_aus_K=F6ln?=",
            "From: =?utf-8?B?SsO8cmdlbg==?= <j@example.com>",
            "To: für@exämple.de",
            "",
            "Subject: not this",
        )
    )
    assert found.subject == "Grüße aus Köln"
    assert found.sender == "Jürgen <j@example.com>"
    assert found.recipients == "für@exämple.de"


def test_the_first_of_two_equal_headers_counts():
    assert summary(mail("Subject: one", "Subject: two", "", "")).subject == "one"


@pytest.mark.parametrize(
    "head",
    [
        "",
        "no header at all",
        "Subject: =?unknown-charset?Q?a=FF?=",
        "Subject: =?utf-8?B?!!!?=",
        "Subject: =?utf-7?Q?+2AA-?=",
        "Subject: =?unicode_escape?Q?=5Cud800?=",
        "Subject: \x00\x01",
        "From: <<<>>>,,;;@@",
        "Content-Type: multipart/mixed",
        "Content-Type: multipart/mixed; boundary=x",
        "Content-Type: text/html; charset=\x00",
        "Content-Type: text/plain; charset=idna",
        "Content-Type: text/plain; charset*0*=''%ff",
        "Content-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: x-uuencode",
        "Content-Type: message/rfc822",
        "Content-Disposition: attachment; filename*=bad''%zz",
    ],
)
def test_a_broken_mail_is_still_listed_and_read(head):
    content = mail(head, "", "--x", "", "body \\ud800", "--x--", "")
    texts = [*vars_of(summary(content)), str(read(content))]
    for text in texts:
        text.encode("utf-8")


def vars_of(found: object) -> list[str]:
    return [getattr(found, name) for name in ("subject", "sender", "recipients")]


def test_bytes_that_are_no_utf8_are_read():
    found = read(b"Subject: \xff\xfe\r\n\r\n\xff")
    assert found.fault is None
    assert found.text == "\ufffd"


def test_nesting_without_end_is_a_fault_and_no_crash():
    depth = 3000
    lines = []
    for level in range(depth):
        lines += [f"Content-Type: multipart/mixed; boundary=b{level}", "", f"--b{level}"]
    found = read(mail(*lines, "", "x"))
    assert found.fault is not None or found.attachments == ()


def test_the_first_html_and_text_are_shown_and_the_rest_are_files():
    found = read(
        mail(
            "Content-Type: multipart/mixed; boundary=x",
            "",
            "--x",
            "Content-Type: text/plain",
            "Content-Disposition: attachment; filename=notes.txt",
            "",
            "attached",
            "--x",
            "",
            "body",
            "--x",
            "Content-Type: text/html; charset=iso-8859-1",
            "Content-Transfer-Encoding: quoted-printable",
            "",
            "<p>=FC</p>",
            "--x",
            "Content-Type: text/html",
            "",
            "second",
            "--x",
            "Content-Type: message/rfc822",
            "",
            "Subject: inner",
            "",
            "inner body",
            "--x--",
        )
    )
    assert found.text == "body"
    assert found.html == "<p>ü</p>"
    names = [part.filename for part in found.attachments]
    assert names == ["notes.txt", "part-2.html", "part-3.eml"]
    assert b"inner body" in found.attachments[2].content


@pytest.mark.parametrize(
    ("said", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("a\r\nSet-Cookie: x", "a__Set-Cookie_ x"),
        ('a"; filename="b.exe', "a_; filename=_b.exe"),
        (".bashrc", "bashrc"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("Rechnung März.pdf", "Rechnung März.pdf"),
        ("", "part-1.pdf"),
        ("/", "part-1.pdf"),
        ("...", "part-1.pdf"),
    ],
)
def test_a_file_name_is_safe_to_save(said, safe):
    assert safe_name(said, "application/pdf", 1) == safe


def test_images_of_the_mail_go_into_its_html_and_foreign_ones_stay_references():
    found = read(
        mail(
            "Content-Type: multipart/related; boundary=x",
            "",
            "--x",
            "Content-Type: text/html",
            "",
            '<!DOCTYPE html><link rel="preconnect" href="//t.example"><img src="cid:a%40b">'
            '<img src="cid:none"><img src="https://t.example/p.gif">',
            "--x",
            "Content-Type: image/gif",
            "Content-ID: <a@b>",
            "Content-Transfer-Encoding: base64",
            "",
            "R0lGODlhAQABAAAAACw=",
            "--x--",
        )
    )
    assert framed(found) == (
        '<!DOCTYPE html><base target="_blank"><x-link rel="preconnect" href="//t.example">'
        '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">'
        '<img src="cid:none"><img src="https://t.example/p.gif">'
    )


@pytest.mark.parametrize(
    "html",
    [
        "<iframe src=x></iframe>",
        "<LINK rel=x>",
        "<if<link>rame src=x>",
        "<object/data=x>",
        "<embed\n>",
    ],
)
def test_no_element_is_left_that_connects_before_it_is_refused(html):
    found = read(mail("Content-Type: text/html", "", html))
    for name in ("link", "iframe", "object", "embed"):
        assert f"<{name}" not in framed(found).lower()
