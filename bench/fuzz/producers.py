"""What producers say, what people have tried instead, and documents that are nearly mails.

Owns the words and documents that inputs for intake are made of. Never decides anything.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from bench.fuzz.documents import Changes
from mailgate.render.catalogue import built_in_root

_DOCS = Path(__file__).parents[2] / "docs"
_SCHEMAS = ("contract.schema.json", "command.schema.json")

#: A word where words go, as people have tried them.
ODD = [
    *(
        "",
        " ",
        "x",
        "x" * 70,
        "wörd " * 30,
        "a\tb",
        "a\r\nBcc: eve@x.org",
        "\x00",
        "\x1b[2J",
        "\u2028x",
    ),
    *("=?utf-8?q?=0A?=", "=?utf-8?b?DQo=?=", "\U0001f600" * 40, "\u202eabc", "e\u0301" * 90, '"\\'),
    *("'\"<>&`{{7*7}}{%x%}", ".\r\n.\r\nMAIL FROM:<e@x>", "x" * 999, "\x85", "\ufeffx", "\ud800"),
    *("-", "--", "a,b;c:d", "(a)", "a@b.de", "<a@b.de>", "mailto:a@b.de", "https://x.org/?a=b&c=d"),
    *("javascript:x", "en", "zh-Hant-TW", "notice", "transactional", "codes", "billing", "news"),
    *(
        "2030-01-01T00:00:00Z",
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00+14:00",
        "24h",
        "1s",
    ),
    *("aGk=", "aGk", "text/html", "message/rfc822", 'a/b; c="d"', "image/svg+xml", "a.pdf", "../a"),
    *(
        "<p>x</p>",
        "<style>p{color:red}</style><p>x",
        "<b>" * 40,
        "<!--",
        "&#0;&#xd800;",
        "]]>",
        "<a",
    ),
    *("<?xml version='1.0' encoding='x'?><p>", "<plaintext>", "<svg/onload=x>", "<base href=//x>"),
    *(
        "a\u00a0@b.de",
        "ü@bücher.example",
        "a@xn--a",
        "a.@b.de",
        '"a b"@b.de',
        "a@[127.0.0.1]",
        "a@b",
    ),
]
_ODDER: list[Any] = [
    *(None, True, 0, -1, 1.5, 1e308, 10**40, [], {}, [[]], [{}], {"a": 1}, ["a@b.de"] * 60),
    *({"name": "activity"}, {"text": "t"}, {"title": "T", "body": "B"}, {"url": "https://x.org/u"}),
]
_FIELDS = [
    *(
        "to",
        "cc",
        "bcc",
        "from",
        "reply_to",
        "subject",
        "text",
        "html",
        "template",
        "data",
        "locale",
    ),
    *(
        "recipients",
        "attachments",
        "headers",
        "tags",
        "metadata",
        "stream",
        "send_at",
        "expires_at",
    ),
    *("throttle", "digest", "unsubscribe", "sensitive", "traceparent", "id", "idempotency_key"),
    *("producer", "version", "email", "name", "filename", "content", "content_type", "content_id"),
    *(
        "url",
        "one_click",
        "key",
        "limit",
        "window",
        "on_limit",
        "X-A",
        "Precedence",
        "title",
        "body",
    ),
    *("button", "cancel", "reschedule", "ask", "reason", "recipient", "events", "template_id"),
]


def composed(data: bytes) -> bytes:
    """A document that is JSON and nearly a mail: each byte chooses a field or a value."""
    left = list(reversed(data))
    budget = 60

    def value(depth: int) -> Any:
        nonlocal budget
        budget -= 1
        kind = left.pop() if left and budget > 0 else 0
        if kind < 150:
            return ODD[kind % len(ODD)]
        if kind < 180:
            return _ODDER[kind % len(_ODDER)]
        many = range(kind % 4 + 1) if depth < 4 else ()
        if kind < 215:
            return [value(depth + 1) for _ in many]
        return {name(): value(depth + 1) for _ in many}

    def name() -> str:
        which = left.pop() if left else 0
        return _FIELDS[which % len(_FIELDS)] if which < 240 else ODD[which % len(ODD)]

    said: dict[str, Any] = {"to": "ann@example.org", "subject": "hi", "text": "there"}
    while left and budget > 0:
        said[name()] = value(0)
    for field in [f for f, v in said.items() if v is None]:
        del said[field]
    return json.dumps(said).encode()


def mails() -> list[Any]:
    """Documents of every kind that the contract has."""
    mail = {"to": "ann@example.org", "subject": "hi", "text": "there"}
    return [
        mail,
        {
            "version": 1,
            "id": "a",
            "idempotency_key": "k",
            "producer": "news",
            "from": "A <a@b.de>",
            "to": ["a@x.org", {"email": "b@x.org", "name": 'Bée, "B"'}],
            "cc": "c@gmail.com",
            "bcc": ["d@x.org"],
            "reply_to": "r@x.org",
            "template": "notice",
            "locale": "pt-BR",
            "data": {"title": "T", "body": "B", "button": {"text": "t", "url": "https://x.org"}},
        },
        {
            **mail,
            "html": "<style>p{color:red}</style><p>x<a href='https://x.org'>y</a>",
            "headers": {"X-A": "b", "Precedence": "bulk"},
            "tags": ["t"],
            "metadata": {"a": 1.5},
            "attachments": [
                {
                    "filename": "ä.pdf",
                    "content": "aGk=",
                    "content_type": 'a/b; c="d"',
                    "content_id": "x@y",
                }
            ],
            "send_at": "2030-01-01T00:00:00Z",
            "expires_at": "2030-01-02T00:00:00+02:00",
            "throttle": {"key": "k", "limit": 2, "window": "24h", "on_limit": "drop"},
            "unsubscribe": {"url": "https://x.org/u", "one_click": True},
            "sensitive": True,
            "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        },
        {
            "recipients": [
                "a@x.org",
                {
                    "email": "b@x.org",
                    "name": "B",
                    "data": {"title": "x"},
                    "locale": "de",
                    "metadata": {"n": 1},
                },
                {"email": "bad"},
            ],
            "template_id": "notice",
            "variables": {"title": "T", "body": "B"},
            "stream": "codes",
        },
        {
            "to": "ann@x.org",
            "digest": {"name": "activity", "key": "k", "id": "1"},
            "data": {"text": "y", "url": "https://x.org"},
        },
        {"cancel": {"id": "a", "recipient": "a@x.org", "reason": "no"}, "id": "c", "producer": "p"},
        {"reschedule": {"idempotency_key": "k", "send_at": "2030-01-01T00:00:00Z"}},
        {"ask": {"id": "a"}, "version": 1},
        {"to": "ü@bücher.example", "subject": "\u202eü", "text": "\ud83d\ude00", "html": "\x1b"},
        {
            "to": {"email": "ann@x.org"},
            "from": {"email": "codes@example.com", "name": "Codes"},
            "subject": "s",
            "text_body": "t",
            "html_body": '<img src="cid:logo"><p>x',
            "attachments": [
                {"filename": "a.png", "content": "iVBORw0KGgo=", "content_id": "logo"},
                {"filename": "a.txt", "content": "aGk=", "content_type": "text/plain"},
            ],
            "scheduled_at": "2030-01-01T00:00:00.5+05:30",
            "unsubscribe": {"url": "mailto:u@x.org?subject=u"},
            "throttle": {"key": "k", "window": "6h", "on_limit": "digest"},
            "producer": "billing",
        },
        {
            "to": "ann@x.org",
            "digest": "activity",
            "data": {"actor": "Bo", "text": "y", "time": "2030-01-01T00:00:00Z"},
            "sensitive": True,
            "metadata": {"a": "b", "c": 1, "d": True},
        },
        {
            "recipients": [
                {"email": "sent@simulate.mailgate.test", "context": {"n": 1}},
                {"email": "a@gmail.com", "personalisation": {}},
            ],
            "subject": "s",
            "html": "<p>only</p>",
            "stream": "bare",
            "from": "x@example.com",
            "throttle": {"window": "1s", "replace": True},
        },
        {
            "reschedule": {
                "id": "a",
                "send_at": "2030-01-01T00:00:00Z",
                "expires_at": "2031-01-01T00:00:00Z",
            },
            "id": "m",
            "producer": "news",
            "version": 1,
        },
        {"cancel": {"idempotency_key": "k1"}, "producer": "billing"},
    ]


def templated(kind: str) -> list[Any]:
    """A mail by each of the built-in templates, filled as its fixture of that name is."""
    found = sorted(built_in_root().glob(f"*/fixtures/{kind}.json"))
    return [
        {"to": "ann@x.org", "template": path.parts[-3], "data": json.loads(path.read_text())}
        for path in found
    ]


@cache
def changes() -> Changes:
    """What is known of documents: the contract's schemas, examples, and what was tried."""
    schemas = [json.loads(path.read_text()) for path in (_DOCS / n for n in _SCHEMAS)]
    made = Changes(schemas, [*ODD, *_ODDER])
    for document in [
        *mails(),
        *(d for kind in ("typical", "hostile", "max") for d in templated(kind)),
    ]:
        made.learn(document)
    made.learn_schemas()
    return made
