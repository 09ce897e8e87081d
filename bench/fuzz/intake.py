"""Bytes from a queue: accepted, an order, or parked with its reason, whatever they are.

Owns the way from the raw bytes over the decision to what the journal would keep, to the
event that the producer gets, and, for what is accepted, to the mail on the wire.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from random import Random
from typing import Any

from bench.fuzz import Bound, hold, noted
from bench.fuzz.documents import swollen
from bench.fuzz.producers import changes, composed, mails, templated
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

#: What one document may take, by its own bytes, which may be more than the input's; of
#: memory and of the slowest known ``docs/security.md`` says more.
BOUND = Bound(seconds=1.0, each=1 / 40_000, most=10.0, memory=768, input=1 << 16, grows=(10, 64))

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
        "intake": {"unknown_producers": "accept"},
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


#: What the first byte of an input says, besides how it came: the rest is no document yet.
COMPOSED, SWOLLEN = 128, 64
#: One change in so many makes a document swell; each swollen one that is kept as it is
#: costs as much as a hundred others, so that most lose it again.
_SWELLS, _STAYS = 600, 20


def delivery(data: bytes) -> Delivery:
    """The first byte says how it came; the rest is the document, composes one, or swells."""
    how, body = (data[0], data[1:]) if data else (0, b"")
    if how & COMPOSED:
        body = composed(body)
    elif how & SWOLLEN and len(body) > 2:
        body = swollen(body[:-2], body[-2], body[-1])
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


def fuzzed(data: bytes) -> str:
    """As ``run``, but of the accepted with HTML only one in eight is made a mail.

    That costs a hundred times the decision, and the campaign is one of decisions.
    """
    return run(data, mails=zlib.crc32(data) % 8 == 0)


def run(data: bytes, *, mails: bool = True) -> str:
    """What became of it: a word."""
    came = delivery(data)
    noted(len(came.body))
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
    if not mails and (made.template or '"html"' in made.body):
        return "accepted"
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
    ways = (0, 20, 41, 50)
    many = [bytes([128 + way, *range(n, 256, 7)]) for n, way in enumerate((0, 4, 9, 32) * 5)]
    documents = [
        bytes([way]) + json.dumps(one, ensure_ascii=way > 0).encode("utf-8", "surrogatepass")
        for one in mails()
        for way in ways
    ]
    filled = [b"\0" + json.dumps(one).encode() for one in templated("typical")]
    return documents + many + filled


def large() -> list[bytes]:
    """Seeds that come near a limit of size or go beyond it, for campaigns."""
    return [swelling(*one) for one in _LARGE]


def swelling(document: Any, which: int, much: int) -> bytes:
    """The input for a document one value of which grows (``documents.swollen``)."""
    return bytes([SWOLLEN]) + json.dumps(document).encode() + bytes([which, much])


_MAIL = {"to": "ann@example.org", "subject": "s", "text": "there"}
#: What is just within a limit, or beyond it: recipients, text, all, values, depth, names.
_LARGE: list[tuple[Any, int, int]] = [
    ({"recipients": ["a@x.org"], "subject": "s", "text": "t"}, 1, 84),
    ({"text": "there ", **_MAIL}, 1, 180),
    ({"text": "there ", **_MAIL}, 1, 255),
    ({"data": {"a": [1]}, **_MAIL}, 5, 176),
    ({"data": {"a": [1]}, **_MAIL}, 227, 120),
    ({"data": {"a": 1}, **_MAIL}, 1, 140),
]


def changed(data: bytes, most: int, dice: Random, blindly: Callable[[bytes, int], bytes]) -> bytes:
    """The next input: another document, or now and then other bytes."""
    how, body, tail = (data[0], data[1:], b"") if data else (0, b"{}", b"")
    if how & COMPOSED:
        return blindly(data, most)
    if how & SWOLLEN:
        body, tail = body[:-2], body[-2:]
    if dice.random() < 0.15:
        body = blindly(body, most - 3)
    else:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            body = blindly(body, most - 3)
        else:
            body = _spelled(changes().changed(document, dice), dice)
    if dice.random() < 0.1:
        how = dice.randrange(SWOLLEN)
    swells = dice.randrange(_STAYS if tail else _SWELLS) == 0
    if swells:
        tail = bytes([tail[0] if tail and dice.random() < 0.5 else dice.randrange(256)])
        tail += bytes([dice.randrange(256)])
    how = how % SWOLLEN + SWOLLEN * swells
    return bytes([how]) + body[: most - 3] + (tail if swells else b"")


def crossed(one: bytes, other: bytes, most: int, dice: Random) -> bytes:
    """A value of another input's document put into this one's."""
    try:
        documents = [json.loads(each[1:]) for each in (one, other)]
    except (ValueError, RecursionError):
        return one
    grafted = changes().grafted(*documents, dice)
    return one[:1] + _spelled(grafted, dice)[: most - 1]


def _spelled(document: Any, dice: Random) -> bytes:
    try:
        said = json.dumps(document, ensure_ascii=dice.random() < 0.5)
    except RecursionError:
        return b"{}"
    return said.encode("utf-8", "surrogatepass")


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
