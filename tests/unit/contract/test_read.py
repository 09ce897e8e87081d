"""Bytes become a submission or a refusal that names every fault at once."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.contract import Refusal, Submission, body_hash, read, remainder
from mailgate.contract.rules import ALIASES
from mailgate.model.address import Address

SMALLEST = {"to": "ann@example.com", "template": "welcome"}
LIMIT = 17 * 2**20


def said(document: Any) -> Submission | Refusal:
    return read(json.dumps(document).encode(), max_bytes=LIMIT)


def accepted(document: Any) -> Submission:
    got = said(document)
    assert isinstance(got, Submission), got
    return got


def refused(document: Any) -> dict[str, str]:
    got = said(document)
    assert isinstance(got, Refusal), got
    return {fault.field: fault.rule for fault in got.faults}


def refused_with(**fields: Any) -> dict[str, str]:
    return refused({**SMALLEST, **fields})


def test_the_smallest_message_is_accepted() -> None:
    message = accepted(SMALLEST)
    assert message.to == (Address("ann@example.com"),)
    assert message.template == "welcome"
    assert message.identity() is None


def test_every_field_is_read() -> None:
    message = accepted(
        {
            "version": 1,
            "id": "i-1",
            "idempotency_key": "k-1",
            "producer": "billing",
            "from": {"email": "shop@example.com", "name": "Shop"},
            "to": ["Ann Bell <ann@EXAMPLE.com>", {"email": "bob@example.com", "name": "Bob"}],
            "cc": "carl@example.com",
            "bcc": [],
            "reply_to": {"email": "help@example.com"},
            "subject": "Hello",
            "text": "Hi",
            "html": "<p>Hi</p>",
            "locale": "pt_BR",
            "attachments": [
                {
                    "filename": "a.pdf",
                    "content": base64.b64encode(b"%PDF").decode(),
                    "content_id": "logo",
                }
            ],
            "headers": {"X-Campaign": "spring"},
            "tags": ["one"],
            "metadata": {"order": 7, "vip": True},
            "stream": "transactional",
            "send_at": "2030-01-31T10:00:00+02:00",
            "expires_at": "2030-02-01T00:00:00Z",
            "throttle": {"key": "reset:ann", "window": "24h", "on_limit": "drop"},
            "unsubscribe": {"url": "https://example.com/u/1", "one_click": True},
            "sensitive": True,
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
    )
    assert message.sender == Address("shop@example.com", "Shop")
    assert message.to[0] == Address("ann@example.com", "Ann Bell")
    assert message.cc == (Address("carl@example.com"),)
    assert message.locale == "pt-BR"
    assert message.attachments[0].content == b"%PDF"
    assert message.attachments[0].content_type == "application/pdf"
    assert message.headers == (("X-Campaign", "spring"),)
    assert message.send_at == datetime(2030, 1, 31, 8, tzinfo=UTC)
    assert message.throttle is not None
    assert (message.throttle.window, message.throttle.limit) == (86400.0, 1)
    assert message.identity() == "k-1"


def test_null_is_the_same_as_absent() -> None:
    fields = {f.alias or name for name, f in Submission.model_fields.items()}
    nulls = dict.fromkeys(fields - SMALLEST.keys() - {"version", "sensitive"})
    assert str(accepted({**SMALLEST, **nulls})) == str(accepted(SMALLEST))


@pytest.mark.parametrize(("alias", "field"), ALIASES.items())
def test_each_alias_is_its_field(alias: str, field: str) -> None:
    value: Any = {"send_at": "2030-01-31T10:00:00Z", "data": {"a": 1}}.get(field, "welcome")
    base: dict[str, Any] = {"to": "ann@example.com"}
    if field in ("text", "html"):
        base["subject"] = "s"
    elif field != "template":
        base["template"] = "welcome"
    one, other = accepted({**base, alias: value}), accepted({**base, field: value})
    assert getattr(one, field) == getattr(other, field)


def test_two_spellings_of_one_field_are_a_fault() -> None:
    found = refused({**SMALLEST, "template_id": "welcome"})
    assert found == {"template_id": "is the same field as template; give one of them"}
    found = refused({"to": "ann@example.com", "template_id": "welcome", "template": "welcome"})
    assert found == {"template": "is the same field as template_id; give one of them"}


def test_a_fault_names_the_spelling_that_was_used() -> None:
    found = refused({"to": "ann@example.com", "template_id": "No Such Name"})
    assert list(found) == ["template_id"]


def test_all_faults_are_named_at_once() -> None:
    found = refused(
        {
            "to": ["ann@example.com", {"email": "bob", "phone": "1"}, 7],
            "template": "welcome",
            "text": "both",
            "sbject": "typo",
            "version": 2,
            "headers": {"X-A": "a\r\nBcc: x@example.com", "From": "me"},
            "attachments": [{"filename": "a", "content": "%%%"}],
            "send_at": "2030-01-01T00:00:00",
            "traceparent": "00-0-0-0",
        }
    )
    assert found.keys() == {
        "to[1].email",
        "to[1].phone",
        "to[2]",
        "text",
        "sbject",
        "version",
        "headers.X-A",
        "headers.From",
        "attachments[0].content",
        "send_at",
        "traceparent",
    }
    assert found["sbject"] == "is not a field of the contract; did you mean subject?"
    assert found["send_at"].startswith("needs an offset")


def test_a_refusal_never_repeats_a_value() -> None:
    canary = "zq81canary"
    got = said(
        {
            "to": [f"{canary}@", f"{canary} {canary}@example.com", {"email": canary}, f"<{canary}"],
            "subject": f"{canary}\n",
            "text": 7,
            "producer": canary.upper(),
            "locale": canary * 9,
            "stream": f"{canary}!",
            "send_at": canary,
            "headers": {"X-A": f"{canary}\0"},
            "throttle": {"window": canary, "on_limit": canary},
            "unsubscribe": {"url": canary},
            "traceparent": canary,
            "attachments": [{"filename": f"{canary}/", "content": canary + "%"}],
            "metadata": {"a": [canary]},
            "tags": [canary * 10],
        }
    )
    assert isinstance(got, Refusal)
    assert len(got.faults) >= 15
    assert canary not in got.reason.lower()


def test_a_refusal_still_tells_whose_message_it_was() -> None:
    got = said({"producer": "billing", "id": "i-7", "idempotency_key": "k\n", "to": 1})
    assert isinstance(got, Refusal)
    assert (got.producer, got.id, got.idempotency_key) == ("billing", "i-7", None)


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({"template": "welcome"}, {"to"}),
        ({"to": [], "template": "welcome"}, {"to"}),
        ({"to": "a@example.com", "recipients": ["b@example.com"], "template": "w"}, {"to"}),
        ({"cc": "a@example.com", "recipients": ["b@example.com"], "template": "w"}, {"cc"}),
        ({"to": "a@example.com"}, {"template"}),
        ({"to": "a@example.com", "subject": "s"}, {"text"}),
        ({"to": "a@example.com", "html": "<p>"}, {"subject"}),
        ({"to": "a@example.com", "template": "w", "html": "<p>"}, {"html"}),
        (
            {
                **SMALLEST,
                "send_at": "2030-01-01T00:00:00Z",
                "expires_at": "2030-01-01T01:00:00+01:00",
            },
            {"expires_at"},
        ),
        (
            {**SMALLEST, "unsubscribe": {"url": "mailto:a@b.com", "one_click": True}},
            {"unsubscribe"},
        ),
    ],
)
def test_fields_that_exclude_or_need_each_other(document: dict[str, Any], fields: set[str]) -> None:
    assert refused(document).keys() == fields


def test_a_template_may_have_its_subject_replaced() -> None:
    assert accepted({**SMALLEST, "subject": "Mine"}).subject == "Mine"


@pytest.mark.parametrize("value", ["a", [], 1, None])
def test_only_an_object_is_a_message(value: object) -> None:
    assert refused(value) == {"": "must be a JSON object"}


@pytest.mark.parametrize(
    "to",
    [
        "ann@example.com, bob@example.com",
        "Ann <ann@example.com>, Bob <bob@example.com>",
        "Bell, Ann <ann@example.com>",
        "Ann <ann@example.com> Bob",
        "Ann <ann@example.com><bob@example.com>",
        "undisclosed: ann@example.com;",
        "ann@example.com\r\nRCPT TO:<bob@example.com>",
        "Ann\r\nBcc: x <ann@example.com>",
        "ann@example.com\0",
        "<>",
        "@example.com:ann@example.com",
        "ann@[127.0.0.1]",
        "ann@localhost",
        "x" * 1_000_000 + "@example.com",
        {"email": "Ann <ann@example.com>"},
        {"name": "Ann"},
        {"email": "ann@example.com", "name": "A\u2028B"},
        {"email": "ann@example.com", "name": "x" * 257},
        ["ann@example.com", ["bob@example.com"]],
    ],
)
def test_what_is_not_exactly_one_address_is_refused(to: object) -> None:
    assert isinstance(said({**SMALLEST, "to": to}), Refusal)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ann Bell <ann@example.com>", "Ann Bell"),
        ('"Bell, Ann" <ann@example.com>', "Bell, Ann"),
        ('"A \\"B\\" C" <ann@example.com>', 'A "B" C'),
        ("<ann@example.com>", ""),
        ("Dr. Jürgen Ü <ann@example.com>", "Dr. Jürgen Ü"),
    ],
)
def test_a_name_before_one_address_is_understood(text: str, name: str) -> None:
    assert accepted({**SMALLEST, "to": text}).to == (Address("ann@example.com", name),)


def test_an_internationalised_domain_is_accepted_in_wire_form() -> None:
    assert accepted({**SMALLEST, "to": "ann@bücher.example"}).to[0].email == (
        "ann@xn--bcher-kva.example"
    )


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("subject", "x" * 998, "x" * 999),
        ("subject", "ü", "a\u2028b"),
        ("subject", "tab-free", "a\x1bb"),
        ("idempotency_key", "x" * 256, "x" * 257),
        ("id", "x", ""),
        ("tags", ["x"] * 10, ["x"] * 11),
        ("tags", ["x" * 64], ["x" * 65]),
        ("metadata", {str(i): i for i in range(50)}, {str(i): i for i in range(51)}),
        ("metadata", {"a": 1.5}, {"a": {}}),
        ("headers", {"X-A": "x" * 998}, {"X-A": "x" * 999}),
        ("headers", {"In-Reply-To": "<a@b>"}, {"X A": "x"}),
        ("headers", {"X-A": "1", "X-B": "1"}, {"X-A": "1", "x-a": "1"}),
        ("to", ["a@example.com"] * 50, ["a@example.com"] * 51),
        ("cc", ["a@example.com"] * 49, ["a@example.com"] * 50),
        ("data", {"a": "x" * 262_000}, {"a": "x" * 263_000}),
        ("locale", "zh-Hant-TW", "english language"),
        ("template", "password_reset", "../secret"),
        ("template", "a" * 64, "a" * 65),
        ("stream", "bulk", "Bulk"),
        ("producer", "shop-1", "shop 1"),
        ("sensitive", True, "yes"),
        ("version", 1, True),
        ("send_at", "2030-01-01t00:00:00.123z", "2030-02-30T00:00:00Z"),
        ("send_at", "2030-01-01 00:00:00-00:00", "9999-12-31T23:59:59-12:00"),
        ("send_at", "2030-01-01T00:00:00Z", 1893456000),
        ("throttle", {"window": "7d"}, {"window": "7"}),
        ("throttle", {"window": "1s", "limit": 3}, {"window": "1s", "limit": 0}),
        ("throttle", {"key": "order-7"}, {}),
        ("throttle", {"replace": True}, {"replace": False}),
        ("throttle", {"replace": True, "window": "1h"}, {"replace": 1, "window": "1h"}),
        ("throttle", {"key": "k", "limit": 2, "window": "1h"}, {"key": "k", "limit": 2}),
        ("throttle", {"window": "1h", "on_limit": "digest"}, {"window": "1h", "on_limit": "x"}),
        ("unsubscribe", {"url": "https://e.org/?u=1&v=2"}, {"url": "http://e.org/"}),
        ("unsubscribe", {"url": "mailto:u@e.org"}, {"url": "https://e.org/>\r\nBcc: x@e.org"}),
        ("unsubscribe", {"url": "https://e.org/"}, {"url": "javascript:alert(1)"}),
        (
            "traceparent",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-new",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ),
    ],
)
def test_caps_and_forms(field: str, good: object, bad: object) -> None:
    accepted({**SMALLEST, field: good})
    found = refused_with(**{field: bad})
    assert all(name.startswith((field, "to")) for name in found), found


@pytest.mark.parametrize(
    "name",
    ["From", "sender", "To", "CC", "Bcc", "Reply-To", "Subject", "Date", "Message-ID", "Received"],
)
def test_headers_of_the_envelope_and_the_message_are_refused(name: str) -> None:
    assert list(refused_with(headers={name: "x"})) == [f"headers.{name}"]


@pytest.mark.parametrize(
    "name",
    ["MIME-Version", "Content-Type", "content-transfer-encoding", "DKIM-Signature", "ARC-Seal"],
)
def test_headers_of_structure_and_signatures_are_refused(name: str) -> None:
    assert list(refused_with(headers={name: "x"})) == [f"headers.{name}"]


@pytest.mark.parametrize(
    "name",
    ["Return-Path", "List-Unsubscribe", "List-Unsubscribe-Post", "Auto-Submitted", "Resent-To"],
)
def test_headers_that_mailgate_owns_are_refused(name: str) -> None:
    assert refused_with(headers={name: "x"}) == {
        f"headers.{name}": "is a header that producers cannot set"
    }


@pytest.mark.parametrize("odd", ["\r\n", "\r", "\n", "\0", "\x0b", "\x7f", "\x85", "\u2029"])
def test_nothing_that_breaks_a_line_reaches_a_header(odd: str) -> None:
    text = f"a{odd}Bcc: x@example.com"
    for fields in (
        {"subject": text},
        {"headers": {"X-A": text}},
        {"headers": {f"X{odd}A": "x"}},
        {"to": {"email": "a@example.com", "name": text}},
        {"attachments": [{"filename": text, "content": ""}]},
        {"attachments": [{"filename": "a", "content": "", "content_type": f"a/b{text}"}]},
        {"attachments": [{"filename": "a", "content": "", "content_id": text}]},
        {"id": text},
        {"tags": [text]},
    ):
        assert refused_with(**fields)


def test_attachments_are_capped_together_before_they_are_decoded() -> None:
    files = [{"filename": "a", "content": "%" * 4 * 2**20}] * 4  # no base64 at all
    found = refused_with(attachments=files)
    assert found == {"attachments": "must not be larger than 10 MB in all, decoded"}
    assert refused_with(attachments=[{"filename": "a", "content": ""}] * 21)
    half = base64.b64encode(bytes(5 * 2**20)).decode()
    two = accepted({**SMALLEST, "attachments": [{"filename": "a", "content": half}] * 2})
    assert sum(len(a.content) for a in two.attachments) == 10 * 2**20


@pytest.mark.parametrize("content", ["A", "AA", "AA=A", "AAAA\n", "AA-_", "AAAA====", "ÄÄÄÄ", 1])
def test_what_is_not_base64_is_refused(content: object) -> None:
    found = refused_with(attachments=[{"filename": "a", "content": content}])
    assert list(found) == ["attachments[0].content"]


@pytest.mark.parametrize("kind", ["message/rfc822", "multipart/mixed", "text", "a/b; c", "a/b\n"])
def test_content_types_that_cannot_be_attached_are_refused(kind: str) -> None:
    found = refused_with(attachments=[{"filename": "a", "content": "", "content_type": kind}])
    assert list(found) == ["attachments[0].content_type"]


def test_one_bad_recipient_is_refused_alone() -> None:
    message = accepted(
        {
            "idempotency_key": "k",
            "template": "welcome",
            "recipients": [
                "a@example.com",
                {"email": "bad", "locale": "?"},
                {"email": "b@example.com", "context": {"n": 1}},
                {"email": "c@example.com", "colour": 1},
            ],
        }
    )
    assert [r.email for r in message.recipients] == ["a@example.com", "b@example.com"]
    assert message.recipients[1].data == {"n": 1}
    assert [r.index for r in message.refused] == [1, 3]
    assert [f.field for f in message.refused[0].faults] == [
        "recipients[1].email",
        "recipients[1].locale",
    ]


def test_the_refused_recipients_alone_make_a_document_to_replay() -> None:
    document = {
        "id": "i",
        "idempotency_key": "k",
        "template": "welcome",
        "data": {"é": 1},
        "recipients": ["a@example.com", {"email": "bad", "data": {"n": 1}}],
    }
    body = json.dumps(document).encode()
    message = read(body, max_bytes=LIMIT)
    assert isinstance(message, Submission)
    assert json.loads(remainder(body, message)) == {
        "template": "welcome",
        "data": {"é": 1},
        "recipients": [{"email": "bad", "data": {"n": 1}}],
    }


def test_when_all_recipients_are_bad_the_message_is_refused() -> None:
    found = refused({"template": "welcome", "recipients": ["bad", {"name": "x"}]})
    assert found.keys() == {"recipients[0]", "recipients[1].email"}


def test_a_fault_outside_of_recipients_refuses_the_whole_message() -> None:
    found = refused({"template": "W", "recipients": ["a@example.com", "bad"]})
    assert found.keys() == {"template", "recipients[1]"}


def test_a_recipient_with_too_much_data_is_refused_alone() -> None:
    large = {"email": "b@example.com", "data": {"a": "x" * 300_000}}
    message = accepted({"template": "welcome", "recipients": ["a@example.com", large]})
    assert [r.index for r in message.refused] == [1]
    assert refused({"template": "w", "recipients": ["a@example.com"] * 1001}) == {
        "recipients": "must not hold more than 1000 recipients"
    }


def test_the_size_cap_comes_before_everything() -> None:
    got = read(b"\xff" * 101, max_bytes=100)
    assert isinstance(got, Refusal)
    assert got.reason == "is larger than 100 bytes"


@pytest.mark.parametrize("encoding", [None, "", "utf-8", "UTF-8", "identity", "binary"])
def test_content_encodings_that_change_nothing_are_accepted(encoding: str | None) -> None:
    body = json.dumps(SMALLEST).encode()
    assert isinstance(read(body, max_bytes=LIMIT, content_encoding=encoding), Submission)


def test_a_compressed_body_is_refused_unread() -> None:
    got = read(b"\x1f\x8b", max_bytes=LIMIT, content_encoding="gzip")
    assert isinstance(got, Refusal)
    assert "content encoding" in got.reason


def test_a_message_with_thousands_of_faults_names_the_first_and_counts_the_rest() -> None:
    got = said({**SMALLEST, **{f"unknown{i}": 1 for i in range(3000)}})
    assert isinstance(got, Refusal)
    assert len(got.faults) == 101
    assert got.faults[-1].rule == "there are 2900 more faults"


def test_the_hash_ignores_order_spacing_and_the_trace() -> None:
    one = {**SMALLEST, "data": {"a": 1, "b": [2]}, "traceparent": "x"}
    other = {"data": {"b": [2], "a": 1}, "template": "welcome", "to": "ann@example.com"}
    assert body_hash(one) == body_hash(other)
    assert body_hash({**other, "data": {"b": [2], "a": 2}}) != body_hash(other)
    body = json.dumps(other, indent=3).encode()
    message = read(body, max_bytes=LIMIT)
    assert isinstance(message, Submission)
    assert message.body_hash == body_hash(one)


@given(
    st.dictionaries(
        st.sampled_from([*Submission.model_json_schema()["properties"], *ALIASES]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.text(max_size=5) | st.sampled_from(["email", "name", "url", "content"]),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=6,
        ),
        max_size=8,
    )
)
def test_no_document_makes_the_reading_raise(document: dict[str, Any]) -> None:
    said(document)
