"""Bytes from a queue: accepted, an order, or parked with its reason, whatever they are.

Owns the way from the raw bytes over the decision to what the journal would keep, to the
event that the producer gets, and, for what is accepted, to the mail on the wire.
"""

from __future__ import annotations

import json
import re
from dataclasses import is_dataclass
from functools import cache
from typing import Any

from bench.fuzz import hold
from mailgate.config.shape import Config
from mailgate.events.document import post
from mailgate.intake.accept import decide
from mailgate.intake.door import Delivery
from mailgate.journal.arrivals import Arrival, NewParked
from mailgate.journal.letters import read_letter
from mailgate.journal.orders import Order
from mailgate.journal.outbox import Told
from mailgate.limits.policy import Policy
from mailgate.model.address import Address
from mailgate.model.message import Envelope
from mailgate.render import Catalogue, Renderer, RenderError
from mailgate.render.catalogue import built_in_root
from mailgate.smtp.opening import Offers
from mailgate.smtp.transaction import commands, unfit

CONFIG = Config.model_validate(
    {
        "relays": {"one": {"host": "one.example"}},
        "streams": {
            "transactional": {"from": "Shop <shop@example.com>"},
            "bare": {},
            "codes": {"expires_after": "10m", "from": "codes@example.com"},
        },
        "producers": {
            "billing": {"amqp_users": ["billing"], "senders": ["*@example.com"]},
            "news": {"templates": ["notice"], "streams": ["transactional"], "max_recipients": 5},
            "bound": {"throttle": "none", "max_bytes": 2048},
        },
        "digests": {"activity": {"items": "events"}},
        "limits": {"domain": {"gmail.com": "1/s"}},
        "intake": {"max_bytes": 1 << 20, "unknown_producers": "accept"},
    }
)
POLICY = Policy(CONFIG)
#: Everything is offered, so that only what no relay could take is refused.
_OFFERS = Offers(True, True, 0, True, True)
_HEADER = re.compile(rb"[!-9;-~]+: ?[\t -~\x80-\xff]*(\r\n[\t ][\t -~\x80-\xff]*)*")


@cache
def catalogue() -> Catalogue:
    return Catalogue.load([built_in_root()])


@cache
def _renderer() -> Renderer:
    return Renderer(catalogue())


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


def delivery(data: bytes) -> Delivery:
    """The first byte says how it came, the rest is the document, or composes one."""
    how, body = (data[0], data[1:]) if data else (0, b"")
    if how & 128:
        body = composed(body)
    return Delivery(
        body=body,
        source=("amqp", "redis-stream", "redis-list")[how % 3],
        identity=body[:40].decode("utf-8", "surrogateescape") if how & 4 else None,
        redelivered=bool(how & 8),
        refusal=None,
        handle=1,
        user_id="billing" if how & 16 else None,
        session=7 if how & 32 else None,
    )


def run(data: bytes) -> str:
    """What became of it: a word."""
    came = delivery(data)
    made = decide(came, CONFIG, catalogue().check_data, POLICY)
    _can_be_kept(made)
    if isinstance(made, NewParked):
        said = json.loads(made.faults)
        hold(said and all(f["rule"] for f in said), "what is parked has its reason")
        hold(len(made.faults) < 64_000, "a reason has an end")
        hold(made.body == came.body, "what is parked has its bytes")
        _told(made, {"parked": "06f1s0v4g6b1c"})
        return "parked"
    if isinstance(made, Order):
        return made.verb
    for aside in made.refused:
        _told(aside, {"parked": "06f1s0v4g6b1c"})
        hold(len(aside.faults) < 64_000, "a reason has an end")
    return "accepted" if _sendable(made) else "unrenderable"


def _can_be_kept(made: Arrival | Order | NewParked) -> None:
    """Every text of it goes into either database."""
    waiting: list[Any] = [made]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            hold("\0" not in value, "no text holds NUL")
            value.encode()
        elif is_dataclass(value):
            waiting += [getattr(value, name) for name in value.__dataclass_fields__]
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value


def _told(parked: NewParked, detail: dict[str, Any]) -> None:
    told = Told(
        *(1, 1, None, 0, "parked", 1_700_000_000_000, detail, parked.producer, parked.identity),
        faults=parked.faults,
        body=parked.body[: 1 << 16],
    )
    json.loads(post(told).body)


def _sendable(made: Arrival) -> bool:
    """The mail of its first recipient; false where its content makes none, for good."""
    to = made.recipients[0]
    letter = read_letter(
        json.loads(made.body),
        message_id=1 << 60,
        recipient_id=3 << 59,
        date=1_700_000_000_000,
        kind=to.kind,
        address=Address(to.email, to.name),
        own=json.loads(to.own) if to.own else None,
        files=made.attachments,
    )
    try:
        content = _renderer().render(letter)
    except RenderError:
        return False
    envelope = Envelope(made.sender, to.email, content)
    hold(unfit(envelope, _OFFERS) is None, "what is accepted can be said on the wire")
    said = b"".join(commands(envelope, _OFFERS))
    hold(said.count(b"\r\n") == said.count(b"\n") == said.count(b"\r") == 3, "three commands")
    head = content.partition(b"\r\n\r\n")[0]
    fields = re.split(rb"\r\n(?![\t ])", head)
    hold(all(_HEADER.fullmatch(field) for field in fields), "headers are headers")
    names = [field.partition(b":")[0].lower() for field in fields]
    for once in (b"from", b"to", b"subject", b"date", b"message-id", b"mime-version"):
        hold(names.count(once) <= 1, "a header of ours stands once")
    hold(b"bcc" not in names, "nobody sees the blind copies")
    wanted = {n.lower().encode() for n, _ in letter.headers}
    hold(not {b"bcc", b"sender"} & wanted, "no header is a producer's that may not be")
    hold(max(map(len, content.split(b"\r\n"))) <= 998, "no line is too long (RFC 5322 2.1.1)")
    return True


def seeds() -> list[bytes]:
    """What a producer may say, so that a campaign begins behind the first door."""
    mail = {"to": "ann@example.org", "subject": "hi", "text": "there"}
    said: list[Any] = [
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
    ]
    ways = (0, 20, 41, 50)
    many = [bytes([128 + way, *range(n, 256, 7)]) for n, way in enumerate((0, 4, 9, 32) * 5)]
    documents = [
        bytes([way]) + json.dumps(one, ensure_ascii=way > 0).encode("utf-8", "surrogatepass")
        for one in said
        for way in ways
    ]
    return documents + many


WORDS = [
    *("{", "}", "[", "]", ":", ",", '"', "\\u0000", "\\ud800", "\\udc00", "1e999", "NaN", "-0"),
    *('"to":', '"cc":', '"from":', '"email":', '"name":', '"subject":', '"text":', '"html":'),
    *('"recipients":', '"template":"notice"', '"data":', '"headers":{', '"attachments":[{'),
    *('"filename":', '"content":', '"content_type":', '"content_id":', '"metadata":', '"tags":'),
    *('"cancel":', '"reschedule":', '"ask":', '"id":', '"idempotency_key":', '"reason":'),
    *('"digest":', '"throttle":', '"send_at":', '"expires_at":', '"unsubscribe":', '"locale":'),
    *("\\r\\nBcc: x@y.z", "\\u2028", "\\u0085", "<x@y.z>", "\\\\", "xn--", "=?utf-8?q?=0A?="),
    *("<!DOCTYPE x [<!ENTITY", "<style>@import", "&#x0;", "<!--", "]]>", "<a href=", "javascript:"),
    "\r\n.\r\n",
]
