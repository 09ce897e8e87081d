"""Mails as independent parsers read them."""

from __future__ import annotations

import email
import email.policy
import email.utils
import re
from collections.abc import Callable
from email.header import decode_header, make_header
from email.message import EmailMessage
from typing import Any

import fast_mail_parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailgate.model.address import Address
from mailgate.model.message import Attachment, Letter, Unsubscribe
from mailgate.render import RenderError
from mailgate.render.headers import RESERVED
from tests.unit.render.house import RENDERER

Make = Callable[..., Letter]
relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=150)

#: What may stand in a header: anything visible, and blanks.
header_text = st.text(
    alphabet=st.characters(
        exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\u0085"
    ),
    max_size=120,
)
awkward = st.text(alphabet="ab \"'(),.:;<>@[]\\=?_é中😀-", max_size=90)
names = st.one_of(header_text, awkward)


def check_wire(raw: bytes) -> None:
    """What must hold for every mail whatever came in."""
    assert raw.endswith(b"\r\n")
    assert b"\0" not in raw
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    assert raw.isascii()
    head, _, body = raw.partition(b"\r\n\r\n")
    assert all(len(line) <= 998 for line in head.split(b"\r\n"))
    assert all(len(line) <= 78 for line in body.split(b"\r\n"))
    for line in head.split(b"\r\n"):
        assert line.strip()


def parsed(raw: bytes) -> EmailMessage:
    check_wire(raw)
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert part.defects == []
    return message


def shape(message: Any) -> Any:
    kind = message.get_content_type()
    if message.is_multipart():
        return (kind.removeprefix("multipart/"), *(shape(part) for part in message.iter_parts()))
    return kind


def content(part: EmailMessage | None) -> str:
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_the_fields_of_a_plain_letter(letter: Make) -> None:
    raw = RENDERER.render(
        letter(
            cc=(Address("bob@example.org"),),
            reply_to=(Address("help@example.com", "Help"),),
            headers=(("X-Campaign", "may"),),
        )
    )
    assert raw.decode() == (
        "From: Example <news@example.com>\r\n"
        "To: Ann Bell <ann@example.org>\r\n"
        "Cc: bob@example.org\r\n"
        "Reply-To: Help <help@example.com>\r\n"
        "Subject: Hello\r\n"
        "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        "Message-ID: <1.abc@example.com>\r\n"
        "Auto-Submitted: auto-generated\r\n"
        "X-Campaign: may\r\n"
        "MIME-Version: 1.0\r\n"
        'Content-Type: text/plain; charset="utf-8"\r\n'
        "Content-Transfer-Encoding: quoted-printable\r\n"
        "\r\n"
        "Hello.\r\n"
    )


FILE = Attachment("a.pdf", "application/pdf", b"%PDF")
LOGO = Attachment("logo.png", "image/png", b"\x89PNG", "logo@example")


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, "text/plain"),
        ({"text": None, "html": "<p>x</p>"}, ("alternative", "text/plain", "text/html")),
        ({"html": "<p>x</p>"}, ("alternative", "text/plain", "text/html")),
        ({"attachments": (FILE,)}, ("mixed", "text/plain", "application/pdf")),
        (
            {"html": "<p>x</p>", "attachments": (FILE,)},
            ("mixed", ("alternative", "text/plain", "text/html"), "application/pdf"),
        ),
        (
            {"html": "<p>x</p>", "attachments": (LOGO,)},
            ("alternative", "text/plain", ("related", "text/html", "image/png")),
        ),
        (
            {"html": "<p>x</p>", "attachments": (FILE, LOGO, FILE)},
            (
                "mixed",
                ("alternative", "text/plain", ("related", "text/html", "image/png")),
                "application/pdf",
                "application/pdf",
            ),
        ),
        ({"attachments": (LOGO,)}, ("mixed", "text/plain", "image/png")),
    ],
)
def test_only_the_levels_that_are_needed(letter: Make, given_: Any, expected: Any) -> None:
    message = parsed(RENDERER.render(letter(**given_)))
    assert shape(message) == expected
    boundaries = [p.get_boundary() for p in message.walk() if p.is_multipart()]
    assert len(set(boundaries)) == len(boundaries)


def test_inline_images_are_shown_and_attachments_offered(letter: Make) -> None:
    message = parsed(
        RENDERER.render(letter(html="<img src='cid:logo@example'>", attachments=(FILE, LOGO)))
    )
    by_type = {part.get_content_type(): part for part in message.walk()}
    assert by_type["image/png"].get_content_disposition() == "inline"
    assert by_type["image/png"]["Content-ID"] == "<logo@example>"
    assert by_type["image/png"].get_content() == b"\x89PNG"
    assert by_type["application/pdf"].get_content_disposition() == "attachment"
    assert by_type["multipart/related"].get_param("type") == "text/html"


def test_equal_letters_give_equal_bytes_and_another_seed_others(letter: Make) -> None:
    given_ = {"html": "<p>x</p>", "attachments": (FILE, LOGO)}
    assert RENDERER.render(letter(**given_)) == RENDERER.render(letter(**given_))
    other = RENDERER.render(letter(**given_, boundary_seed="other"))
    assert other != RENDERER.render(letter(**given_))
    assert len(other) == len(RENDERER.render(letter(**given_)))


def test_no_body_can_hold_a_boundary(letter: Make) -> None:
    first = RENDERER.render(letter(html="<p>x</p>"))
    boundary = re.search(rb'boundary="([^"]+)"', first)
    assert boundary
    held = f"--{boundary[1].decode()}\n--{boundary[1].decode()}--\n"
    message = parsed(RENDERER.render(letter(text=held, html=f"<pre>{held}</pre>")))
    assert shape(message) == ("alternative", "text/plain", "text/html")
    assert content(message.get_body(("plain",))) == held


@relaxed
@given(
    body=st.one_of(
        st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=400),
        st.text(alphabet="a.=\n\r\t é", max_size=300),
    )
)
def test_bodies_come_back(letter: Make, body: str) -> None:
    whole = body.replace("\r\n", "\n").replace("\r", "\n")
    expected = whole.rstrip("\n")
    raw = RENDERER.render(letter(text=body, html=f"<p>{body}</p>"))
    message = parsed(raw)
    assert content(message.get_body(("plain",))).rstrip("\n") == expected
    assert content(message.get_body(("html",))).rstrip("\n") == f"<p>{whole}</p>"
    fast = fast_mail_parser.parse_email(raw)
    assert fast.text_plain[0].replace("\r\n", "\n").rstrip("\n") == expected


SMUGGLING = [
    "\r\n.\r\n",
    "\n.\n",
    "\r.\r",
    "\n.\r\n",
    "\r\n.\n",
    "\r\n.\r",
    "\0.\r\n",
    "\r\n\0.\r\n",
]


@pytest.mark.parametrize("sequence", SMUGGLING)
def test_no_sequence_ends_the_data_early(letter: Make, sequence: str) -> None:
    body = f"a{sequence}MAIL FROM:<eve@example.com>{sequence}"
    raw = RENDERER.render(
        letter(text=body, html=body, attachments=(Attachment("a", "text/plain", body.encode()),))
    )
    check_wire(raw)


@relaxed
@given(subject=names)
def test_subjects_come_back(letter: Make, subject: str) -> None:
    raw = RENDERER.render(letter(subject=subject))
    message = parsed(raw)
    wanted = subject.strip()
    assert message["Subject"].rstrip() == wanted
    for line in raw.partition(b"\r\nDate:")[0].partition(b"Subject:")[2].split(b"\r\n"):
        assert len(line) <= 78
    if wanted and "=?" not in wanted:
        assert squeezed(fast_mail_parser.parse_email(raw).subject) == squeezed(wanted)


@pytest.mark.parametrize(
    "subject",
    [
        "=?utf-8?q?Free=20money?=",
        "Re: =?x?=",
        "a =?utf-8?b?eA==?= b",
        "=?utf-8?q?a?= =?utf-8?q?b?=",
    ],
)
def test_a_subject_that_looks_encoded_is_shown_as_it_is(letter: Make, subject: str) -> None:
    raw = RENDERER.render(letter(subject=subject))
    assert parsed(raw)["Subject"] == subject
    assert fast_mail_parser.parse_email(raw).subject == subject


@relaxed
@given(name=names, second=names)
def test_display_names_come_back_and_make_no_further_address(
    letter: Make, name: str, second: str
) -> None:
    people = (Address("ann@example.org", name), Address("bob@example.org", second))
    raw = RENDERER.render(letter(sender=Address("s@example.com", name), to=people, reply_to=people))
    message = parsed(raw)
    for field, expected in (("From", (people[0],)), ("To", people), ("Reply-To", people)):
        # The policy parser of 3.11 puts a blank between encoded words of a name
        # (against RFC 2047 section 6.2), so the older parser reads the names.
        written = str(email.message_from_bytes(raw)[field])
        pairs = email.utils.getaddresses([re.sub(r"\r?\n", "", written)])
        found = [str(make_header(decode_header(name))) for name, _ in pairs]
        assert [squeezed(name) for name in found] == [squeezed(p.name) for p in expected]
    assert [a.addr_spec for a in message["To"].addresses] == ["ann@example.org", "bob@example.org"]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Ann Bell", "Ann Bell"),
        ("Bell, Ann", '"Bell, Ann"'),
        ("X (Y)", '"X (Y)"'),
        ("a@b", '"a@b"'),
        ('The "Boss"', '"The \\"Boss\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("Österreich, GmbH", "=?utf-8?q?=C3=96sterreich=2C_GmbH?="),
        ("=?utf-8?q?x?=", "=?utf-8?b?PT91dGYtOD9xP3g/PQ==?="),
        ("安娜", "=?utf-8?b?5a6J5aic?="),
        ("", ""),
    ],
)
def test_display_names_are_written_as_the_rfc_has_them(
    letter: Make, name: str, written: str
) -> None:
    raw = RENDERER.render(letter(sender=Address("s@example.com", name)))
    first = raw.partition(b"\r\nTo:")[0].decode()
    assert first == f"From: {written + ' <s@example.com>' if written else 's@example.com'}"


#: What breaks in other people's mail: (display name, subject, file name).
HARD = {
    "comma": ("Bell, Ann", "Invoice, 3 May", "a, b.pdf"),
    "quotes": ('Ann "Boss" Bell', 'The "final" one', "the 'final' one.pdf"),
    "comma and accent": ("Österreich, GmbH", "Übersicht, März", "Übersicht, März.pdf"),
    "emoji": ("Ann 👩‍👩‍👧 Bell", "🎉 Welcome 👋🏽", "🎉.png"),
    "right to left": ("أحمد بن علي", "شكرا لك على طلبك رقم 12", "فاتورة 12.pdf"),
    "hebrew": ("דנה כהן", "ההזמנה שלך (42) נשלחה", "קבלה.pdf"),
    "chinese": ("王小明", "您的订单已发货", "发票 2026年5月.pdf"),
    "long": ("名" * 60, "Subject " * 60 + "ende", "文件" * 60 + ".pdf"),
    "long and beyond ascii": (
        "Zoë " * 30 + "!",
        "naïve café 你好 😀 " * 25 + "!",
        "é" * 150 + ".pdf",
    ),
}


@pytest.mark.parametrize("name", HARD)
def test_two_parsers_read_back_what_breaks_elsewhere(letter: Make, name: str) -> None:
    """The standard library's and a Rust one: whom, what about, which file, where to leave."""
    person, subject, filename = HARD[name]
    url = "https://example.com/unsubscribe?token=" + "a1B2-_" * 50
    raw = RENDERER.render(
        letter(
            sender=Address("shop@example.com", person),
            to=(Address("ann@example.org", person), Address("bob@example.org", "Bob")),
            subject=subject,
            attachments=(Attachment(filename, "application/pdf", b"%PDF"),),
            unsubscribe=Unsubscribe(url),
        )
    )
    message = parsed(raw)
    assert message["Subject"] == subject
    assert [a.addr_spec for a in message["To"].addresses] == ["ann@example.org", "bob@example.org"]
    assert message["List-Unsubscribe"] == f"<{url}>"
    (file,) = message.iter_attachments()
    assert (file.get_filename(), file.get_content()) == (filename, b"%PDF")

    fast = fast_mail_parser.parse_email(raw)
    assert fast.warnings == []
    assert fast.subject == subject
    assert fast.from_ is not None
    assert (fast.from_.display_name, fast.from_.address) == (person, "shop@example.com")
    assert [(a.display_name, a.address) for a in fast.to] == [
        (person, "ann@example.org"),
        ("Bob", "bob@example.org"),
    ]
    assert fast.headers["List-Unsubscribe"] == [f"<{url}>"]
    assert [(a.filename, bytes(a.content)) for a in fast.attachments] == [(filename, b"%PDF")]


def test_many_recipients_are_folded(letter: Make) -> None:
    people = tuple(
        Address(f"person{i}@example.org", f"Person Nr. {i}, é" * (i % 3)) for i in range(50)
    )
    raw = RENDERER.render(letter(to=people))
    assert [a.addr_spec for a in parsed(raw)["To"].addresses] == [p.email for p in people]
    assert all(len(line) <= 78 for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n"))


@relaxed
@given(filename=names.filter(lambda n: n.strip()))
def test_file_names_come_back(letter: Make, filename: str) -> None:
    expected = filename.replace("/", "_").replace("\\", "_").strip()
    raw = RENDERER.render(letter(attachments=(Attachment(filename, "image/png", b"x"),)))
    (file,) = parsed(raw).iter_attachments()
    assert file["Content-Disposition"].params["filename"] == expected


@pytest.mark.parametrize("filename", ["Bericht é.pdf", "报告.pdf", "x" * 300 + ".pdf", "é" * 200])
def test_a_second_parser_reads_file_names(letter: Make, filename: str) -> None:
    raw = RENDERER.render(letter(attachments=(Attachment(filename, "application/pdf", b"x"),)))
    (file,) = fast_mail_parser.parse_email(raw).attachments
    assert file.filename == filename
    assert bytes(file.content) == b"x"


def test_a_one_click_url_is_never_folded_or_encoded(letter: Make) -> None:
    url = "https://example.com/u?" + "token=abcdef0123456789&" * 30
    raw = RENDERER.render(letter(unsubscribe=Unsubscribe(url)))
    assert f"\r\nList-Unsubscribe: <{url}>\r\n".encode() in raw
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in raw
    plain = RENDERER.render(
        letter(unsubscribe=Unsubscribe("mailto:u@example.com", one_click=False))
    )
    assert b"List-Unsubscribe: <mailto:u@example.com>\r\n" in plain
    assert b"List-Unsubscribe-Post" not in plain


@pytest.mark.parametrize(
    ("url", "one_click"),
    [
        ("http://example.com/u", True),
        ("javascript:x", True),
        ("https://example.com/u>,<https://evil.example", True),
        ("https://example.com/a b", True),
        ("https://example.com/\r\nBcc: x@y.example", True),
        ("https://example.com/ü", True),
        ("mailto:u@example.com", True),
        ("https://example.com/" + "x" * 1000, True),
    ],
)
def test_an_unsubscribe_url_that_would_not_work_is_refused(
    letter: Make, url: str, one_click: bool
) -> None:
    with pytest.raises(RenderError) as raised:
        RENDERER.render(letter(unsubscribe=Unsubscribe(url, one_click)))
    assert raised.value.kind == "header_invalid"


def test_long_opaque_fields_are_folded_between_words_and_never_encoded(letter: Make) -> None:
    references = " ".join(f"<{i}.{'a' * 40}@mail.example.com>" for i in range(20))
    raw = RENDERER.render(letter(headers=(("References", references), ("Feedback-ID", "a" * 200))))
    assert b"=?" not in raw
    assert b"\r\nFeedback-ID: " + b"a" * 200 + b"\r\n" in raw
    assert parsed(raw)["References"] == references


@pytest.mark.parametrize(
    "name", [*sorted(RESERVED), "Content-Type", "CONTENT-id", "Resent-To", "ARC-Seal"]
)
def test_fields_that_are_not_for_producers(letter: Make, name: str) -> None:
    with pytest.raises(RenderError) as raised:
        RENDERER.render(letter(headers=((name, "x"),)))
    assert raised.value.kind == "header_invalid"


@pytest.mark.parametrize(
    "name", ["", "X Y", "X:", "X\r\nBcc", "X\n", "Ü", "X\0", ":", "-x", "x" * 80, "X(y)"]
)
def test_field_names_are_words(letter: Make, name: str) -> None:
    with pytest.raises(RenderError):
        RENDERER.render(letter(headers=((name, "x"),)))


CONTROLS = [
    "\r\nBcc: e@x.example",
    "\n x",
    "\rx",
    "\0",
    "\x0b",
    "\x7f",
    "\x85",
    "\u2028",
    "\u2029",
    "\ud800",
]


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(
    "place",
    [
        lambda c: {"subject": f"a{c}b"},
        lambda c: {"sender": Address("s@example.com", f"a{c}b")},
        lambda c: {"to": (Address("t@example.com", f"a{c}b"),)},
        lambda c: {"to": (Address(f"t{c}b@example.com"),)},
        lambda c: {"reply_to": (Address("t@example.com", f"a{c}b"),)},
        lambda c: {"headers": (("X-A", f"a{c}b"),)},
        lambda c: {"message_id": f"<a{c}b@example.com>"},
        lambda c: {"attachments": (Attachment(f"a{c}b", "text/plain", b""),)},
        lambda c: {"attachments": (Attachment("a", f"text/plain; x=a{c}b", b""),)},
        lambda c: {"html": "x", "attachments": (Attachment("a", "image/png", b"", f"a{c}b"),)},
        lambda c: {"unsubscribe": Unsubscribe(f"https://example.com/{c}b")},
    ],
    ids=[
        "subject",
        "from",
        "to name",
        "to",
        "reply-to",
        "custom",
        "id",
        "file",
        "type",
        "cid",
        "url",
    ],
)
def test_nothing_that_could_start_a_line_gets_into_a_header(
    letter: Make, place: Callable[[str], dict[str, Any]], control: str
) -> None:
    with pytest.raises(RenderError) as raised:
        RENDERER.render(letter(**place(control)))
    assert raised.value.kind == "header_invalid"


@pytest.mark.parametrize(
    "email_", ["a@x.example, b@x.example", "<a@x.example>", "a b@x.example", "a", '"a"@x.example']
)
def test_an_address_field_takes_bare_addresses_only(letter: Make, email_: str) -> None:
    with pytest.raises(RenderError):
        RENDERER.render(letter(to=(Address(email_),)))


def test_a_custom_field_twice_is_refused(letter: Make) -> None:
    with pytest.raises(RenderError, match="twice"):
        RENDERER.render(letter(headers=(("X-A", "1"), ("x-a", "2"))))


@pytest.mark.parametrize(
    ("given_", "written"),
    [
        (
            "text/calendar; method=REQUEST; charset=utf-8",
            'text/calendar; method="REQUEST"; charset="utf-8"',
        ),
        ("IMAGE/PNG", "image/png"),
        ("message/rfc822", "application/octet-stream"),
        ("multipart/mixed; boundary=x", "application/octet-stream"),
    ],
)
def test_content_types_are_written_anew(letter: Make, given_: str, written: str) -> None:
    raw = RENDERER.render(letter(attachments=(Attachment("a", given_, b"x"),)))
    assert f"\r\nContent-Type: {written}\r\n".encode() in raw


@pytest.mark.parametrize("given_", ["", "pdf", "a/b/c", "a/b; c", "a/b; c=d e", "a /b"])
def test_what_is_no_content_type_is_refused(letter: Make, given_: str) -> None:
    with pytest.raises(RenderError):
        RENDERER.render(letter(attachments=(Attachment("a", given_, b"x"),)))


def test_bcc_has_no_way_in(letter: Make) -> None:
    raw = RENDERER.render(letter(to=(), cc=(Address("c@example.org"),)))
    assert b"\r\nTo: undisclosed-recipients:;\r\n" in raw
    assert b"bcc" not in raw.lower()


def test_a_local_part_beyond_ascii_is_written_in_utf8_and_nothing_else_is(letter: Make) -> None:
    raw = RENDERER.render(letter(to=(Address("josé@example.org", "José"),)))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert "To: =?utf-8?b?Sm9zw6k=?= <josé@example.org>\r\n".encode() in head + b"\r\n"
    assert body.isascii()
    assert raw.replace("josé".encode(), b"").isascii()
