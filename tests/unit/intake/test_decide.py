"""What one delivery becomes: a message, or parked bytes with every fault named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailgate.config.limits import Limits
from mailgate.config.producers import Producer
from mailgate.config.shape import Config
from mailgate.intake.accept import decide
from mailgate.intake.door import Delivery
from mailgate.journal.arrivals import Arrival, NewParked
from mailgate.journal.orders import Order
from mailgate.journal.rescheduling import When
from mailgate.limits.policy import Policy
from mailgate.model.state import Lane
from mailgate.model.value import replace

CONFIG = Config.model_validate(
    {
        "relays": {"one": {"host": "one.example"}, "two": {"host": "two.example"}},
        "streams": {
            "transactional": {"from": "Shop <shop@example.com>"},
            "bulk": {"from": "news@example.com", "relays": ["two"], "envelope_from": ""},
            "codes": {"expires_after": "10m", "from": "codes@example.com"},
        },
        "intake": {"max_bytes": 20_000},
    }
)


@dataclass(frozen=True)
class Wrong:
    field: str
    rule: str


def check(template: str, data: Mapping[str, Any]) -> Sequence[Wrong]:
    """A catalogue of one template that needs a name."""
    if template != "welcome":
        return [Wrong("template", "is not known")]
    return [] if "name" in data else [Wrong("data.name", "is required")]


def delivery(document: object, **changes: Any) -> Delivery:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    values: dict[str, Any] = {
        "body": body,
        "source": "amqp",
        "identity": None,
        "redelivered": False,
        "refusal": None,
        "handle": 5,
    }
    return Delivery(**{**values, **changes})


SMALL = {"to": "ann@example.org", "subject": "hi", "text": "there"}


def accepted(document: object = SMALL, *, config: Config = CONFIG, **changes: Any) -> Arrival:
    decided = decide(delivery(document, **changes), config, check, Policy(config))
    assert isinstance(decided, Arrival), decided
    return decided


def parked(document: object, *, config: Config = CONFIG, **changes: Any) -> NewParked:
    decided = decide(delivery(document, **changes), config, check, Policy(config))
    assert isinstance(decided, NewParked)
    return decided


def faults(row: NewParked) -> dict[str, str]:
    return {f["field"]: f["rule"] for f in json.loads(row.faults)}


# --- the message ---------------------------------------------------------------------


def test_the_smallest_message_is_accepted_with_the_defaults() -> None:
    a = accepted()
    assert (a.producer, a.stream, a.raw) == ("default", "transactional", json.dumps(SMALL).encode())
    [r] = a.recipients
    assert (r.kind, r.email, r.own) == ("to", "ann@example.org", None)
    assert (r.bucket.lane, r.bucket.producer, r.bucket.route) == (
        Lane.NORMAL,
        "default",
        ("one", "two"),
    )
    body = json.loads(a.body)
    assert body["from"] == ["shop@example.com", "Shop"]
    assert body["mail_from"] == "shop@example.com"
    assert body["domain"] == "example.com"


def test_a_stream_says_lane_relays_and_envelope_sender() -> None:
    a = accepted({**SMALL, "stream": "bulk", "producer": "news"})
    [r] = a.recipients
    assert (r.bucket.lane, r.bucket.producer, r.bucket.route) == (Lane.BULK, "news", ("two",))
    assert json.loads(a.body)["mail_from"] == ""


def test_the_sender_is_the_from_address_whoever_says_it() -> None:
    assert accepted().sender == "shop@example.com"
    assert accepted({**SMALL, "stream": "bulk"}).sender == "news@example.com"
    said = accepted({**SMALL, "from": "Me <Me@Bücher.Example>"})
    assert said.sender == "Me@xn--bcher-kva.example"


def test_who_goes_to_a_limited_destination_waits_by_itself() -> None:
    config = CONFIG.model_copy(
        update={"limits": Limits.model_validate({"domain": {"gmail.com": "1/s"}})}
    )
    said = accepted({**SMALL, "to": ["a@gmail.com", "b@example.org"]}, config=config)
    assert [r.bucket.domain for r in said.recipients] == ["gmail.com", ""]


def test_everything_that_was_said_is_kept() -> None:
    a = accepted(
        {
            **SMALL,
            "from": "Me <me@example.net>",
            "tags": ["x"],
            "metadata": {"n": 1},
            "sensitive": True,
            "send_at": "2030-01-01T00:00:00Z",
            "expires_at": "2030-01-02T00:00:00Z",
            "throttle": {"key": "k", "limit": 2, "window": "1h", "on_limit": "drop"},
            "headers": {"X-A": "b"},
            "unsubscribe": {"url": "https://example.com/u"},
            "attachments": [{"filename": "a.txt", "content": "aGk="}],
            "idempotency_key": "k1",
        }
    )
    assert (a.send_at, a.expires_at) == (1_893_456_000_000, 1_893_542_400_000)
    assert json.loads(a.throttle or "") == ["k", 2, 3_600_000, "drop", False]
    assert (a.tags, a.metadata, a.sensitive, a.idempotency_key) == ('["x"]', '{"n": 1}', True, "k1")
    assert a.attachments[0].content == b"hi"
    body = json.loads(a.body)
    assert body["from"] == ["me@example.net", "Me"]
    assert body["unsubscribe"] == ["https://example.com/u", True]
    assert (body["headers"], body["files"]) == ([["X-A", "b"]], 1)


def test_one_address_gets_one_copy_however_often_it_is_named() -> None:
    a = accepted(
        {
            **SMALL,
            "to": ["ann@example.org", "Ann <ann@EXAMPLE.org>"],
            "cc": ["bob@example.org", "ann@example.org"],
            "bcc": ["bob@example.org", "eve@example.org"],
        }
    )
    assert [(r.kind, r.email) for r in a.recipients] == [
        ("to", "ann@example.org"),
        ("cc", "bob@example.org"),
        ("bcc", "eve@example.org"),
    ]


def test_private_recipients_keep_what_is_their_own() -> None:
    a = accepted(
        {
            "template": "welcome",
            "data": {"name": "all"},
            "recipients": [
                {"email": "a@example.org", "data": {"x": 1}, "locale": "de"},
                "b@example.org",
                "a@example.org",
            ],
        }
    )
    assert [(r.kind, r.email) for r in a.recipients] == [
        ("own", "a@example.org"),
        ("own", "b@example.org"),
    ]
    assert json.loads(a.recipients[0].own or "") == {"data": {"x": 1}, "locale": "de"}
    assert a.recipients[1].own is None


def test_a_stream_whose_mail_ages_ends_it_after_its_time() -> None:
    """``expires_after`` counts from the moment it may first be sent."""
    a = accepted({**SMALL, "stream": "codes"})
    assert (a.expires_at, a.lifetime) == (None, 600_000)
    own = accepted({**SMALL, "stream": "codes", "expires_at": "2030-01-01T00:00:00Z"})
    assert own.expires_at == 1_893_456_000_000
    assert accepted().lifetime is None


# --- identity ------------------------------------------------------------------------


def test_the_key_before_the_id_before_the_transports() -> None:
    both = {**SMALL, "idempotency_key": "k", "id": "i"}
    assert accepted(both, identity="t").identity == "key:k"
    assert accepted({**SMALL, "id": "i"}, identity="t").identity == "key:i"
    assert accepted(identity="t").identity == "amqp:t"
    assert accepted(identity="t", source="redis").identity == "redis:t"


def test_what_a_producer_calls_its_message_is_never_taken_for_a_transports() -> None:
    assert accepted({**SMALL, "id": "amqp:1"}).identity != accepted(identity="1").identity


def test_a_nameless_delivery_has_an_identity_of_its_own_that_a_second_try_finds() -> None:
    one = accepted(session=1, handle=5)
    assert one.session == 1
    assert one.identity == accepted(session=1, handle=5).identity
    others = {accepted(session=s, handle=h).identity for s in (1, 2) for h in (5, 6)}
    assert len(others) == 4
    # Without a session nothing could find it: it is new each time.
    assert accepted().identity != accepted().identity


def test_only_a_nameless_delivery_is_looked_for_by_its_body() -> None:
    assert accepted({**SMALL, "id": "i"}, session=1, redelivered=True).session is None
    assert accepted(identity="t", session=1, redelivered=True).session is None
    nameless = accepted(session=1, redelivered=True)
    assert (nameless.session, nameless.redelivered) == (1, True)


def test_an_identity_fits_its_column() -> None:
    assert len(accepted(identity="x" * 1000).identity) == 400
    assert len(accepted({**SMALL, "id": "x" * 256}).identity) == 260


@pytest.mark.parametrize("identity", ["a\x00b", "a\ud800b", "\x00"])
def test_every_store_can_hold_an_identity(identity: str) -> None:
    """PostgreSQL takes no NUL, UTF-8 no half a pair; an AMQP message_id may have both."""
    for text in (
        accepted(identity=identity).identity,
        parked({**SMALL, "unknown": 1}, identity=identity).identity,
    ):
        assert "\x00" not in text
        text.encode()
    assert accepted(identity="a\x00").identity != accepted(identity="a").identity


def test_neither_order_nor_spacing_nor_trace_makes_another_body() -> None:
    said = {**SMALL, "id": "1"}
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    mixed = json.dumps({**trace, **dict(reversed(said.items()))}, indent=2).encode()
    assert accepted(said).body_hash == accepted(mixed).body_hash
    assert accepted(said).body_hash != accepted({**said, "text": "else"}).body_hash


OWN = {"window": "1h"}
REPLACING = {"window": "1h", "replace": True}


@pytest.mark.parametrize(
    ("may", "throttle", "field"),
    [
        ("stricter", OWN, None),
        ("stricter", REPLACING, "throttle.replace"),
        ("any", REPLACING, None),
        ("none", OWN, "throttle"),
    ],
)
def test_a_message_says_of_throttles_what_its_producer_may(
    may: str, throttle: dict[str, Any], field: str | None
) -> None:
    section = Producer.model_validate({"throttle": may})
    config = CONFIG.model_copy(update={"producers": {"shop": section}})
    document = {**SMALL, "producer": "shop", "throttle": throttle}
    if field is None:
        kept = json.loads(accepted(document, config=config).throttle or "")
        assert kept == ["", 1, 3_600_000, "defer", "replace" in throttle]
    else:
        assert list(faults(parked(document, config=config))) == [field]


def test_a_key_alone_is_kept_for_the_rules_that_count_by_key() -> None:
    document = {**SMALL, "throttle": {"key": "order-7"}}
    assert json.loads(accepted(document).throttle or "") == ["order-7", None, None, "defer", False]


# --- parked --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({**SMALL, "stream": "nope"}, "stream"),
        ({"to": "ann@example.org", "template": "nope"}, "template"),
        ({"to": "ann@example.org", "template": "welcome"}, "data.name"),
        ({"subject": "x", "text": "y"}, "to"),
        ({**SMALL, "unknown": 1}, "unknown"),
    ],
)
def test_each_refusal_names_its_field(document: dict[str, Any], field: str) -> None:
    row = parked(document)
    assert field in faults(row), faults(row)
    assert (row.kind, row.body, row.source) == ("invalid", json.dumps(document).encode(), "amqp")


def test_all_faults_are_named_at_once() -> None:
    document = {"to": "ann@example.org", "template": "welcome", "stream": "nope"}
    assert faults(parked(document)).keys() == {"stream", "data.name"}


def test_a_stream_without_sender_needs_a_from() -> None:
    config = Config.model_validate({"relays": {"one": {"host": "h.example"}}})
    assert "from" in faults(parked(SMALL, config=config))
    assert accepted({**SMALL, "from": "a@example.com"}, config=config).recipients


def test_without_a_relay_nothing_is_accepted() -> None:
    config = Config.model_validate({"streams": {"transactional": {"from": "a@example.com"}}})
    assert "relay" in faults(parked(SMALL, config=config))["stream"]


def test_a_refused_envelope_is_parked_unread() -> None:
    row = parked(b"\x1f\x8b", refusal="has a content encoding")
    assert list(faults(row).values()) == ["has a content encoding"]
    assert row.body == b"\x1f\x8b"


def test_too_large_is_parked_unread() -> None:
    row = parked({**SMALL, "text": "x" * 30_000})
    assert "20000" in faults(row)[""]


def test_what_is_parked_again_is_the_same_row() -> None:
    bad = {**SMALL, "unknown": 1}
    assert parked(bad, identity="t").identity == parked(bad, identity="t").identity
    assert parked(bad, redelivered=True).identity == parked(bad, redelivered=True).identity
    assert parked(bad, session=1).identity == parked(bad, session=1).identity
    assert parked(bad).identity != parked(bad).identity
    assert len(parked(bad, identity="x" * 1000).identity) <= 400


def test_the_producer_of_parked_bytes_is_known_where_legible() -> None:
    assert parked({**SMALL, "producer": "shop", "unknown": 1}).producer == "shop"
    assert parked({**SMALL, "producer": "No!\x00", "unknown": 1}).producer is None
    assert parked(b"no json").producer is None


# --- some recipients are refused and the others go ------------------------------------


LIST = {
    "id": "list-1",
    "template": "welcome",
    "recipients": [
        {"email": "good@example.org", "data": {"name": "G"}},
        {"email": "no address"},
        {"email": "nodata@example.org", "data": {"x": 1}, "locale": "de"},
    ],
}


def test_bad_recipients_are_parked_alone() -> None:
    a = accepted(LIST)
    assert [r.email for r in a.recipients] == ["good@example.org"]
    [row] = a.refused
    assert (row.kind, row.producer) == ("recipient", "default")
    said = faults(row)
    assert any(f.startswith("recipients[1].email") for f in said), said
    left = json.loads(row.body)["recipients"]
    assert left[0] == {"email": "no address"}
    assert left[1] == {"email": "nodata@example.org", "data": {"x": 1}, "locale": "de"}


def test_the_faults_name_the_recipient_that_has_them() -> None:
    """By its place in what was published, also when an earlier one was refused already."""
    [row] = accepted(LIST).refused
    assert "recipients[2].data.name" in faults(row)


def test_what_was_left_out_can_be_mended_and_replayed() -> None:
    [row] = accepted(LIST).refused
    document = json.loads(row.body)
    for r in document["recipients"]:
        r["email"] = r["email"].replace("no address", "mended@example.org")
        r["data"] = {"name": "N"}
    again = accepted(document)
    assert [r.email for r in again.recipients] == ["mended@example.org", "nodata@example.org"]
    assert again.refused == ()
    # Not under the identity by which the good ones were accepted.
    assert again.idempotency_key is None
    assert "list-1" not in again.identity


def test_replayed_as_it_is_the_rest_is_refused_again_and_nobody_is_written_to_twice() -> None:
    [row] = accepted(LIST).refused
    assert faults(parked(row.body))


def test_when_all_are_bad_the_whole_is_parked_as_it_came() -> None:
    document = {**LIST, "recipients": LIST["recipients"][1:]}
    row = parked(document)
    assert (row.kind, row.body) == ("invalid", json.dumps(document).encode())


def test_the_same_list_again_parks_the_same_row() -> None:
    one, two = accepted(LIST), accepted(LIST)
    assert one.refused[0].identity == two.refused[0].identity


# --- anything at all -------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = ["to", "recipients", "template", "data", "subject", "text", "id", "producer", "stream"]
FIELDS += ["throttle", "headers", "attachments", "send_at", "tags", "metadata", "unsubscribe"]


@settings(max_examples=150)
@given(
    st.binary(max_size=50)
    | JSON.map(lambda v: json.dumps(v).encode())
    | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5).map(
        lambda d: json.dumps({**SMALL, **d}).encode()
    ),
    st.none() | st.text(max_size=10),
    st.booleans(),
)
def test_no_delivery_raises_and_what_is_parked_can_be_stored(
    body: bytes, identity: str | None, redelivered: bool
) -> None:
    d = replace(delivery(body), identity=identity, redelivered=redelivered)
    decided = decide(d, CONFIG, check, Policy(CONFIG))
    if isinstance(decided, NewParked):
        assert decided.body == body
        assert json.loads(decided.faults)
        # A text column of PostgreSQL takes neither NUL nor half a surrogate pair.
        for text in (decided.faults, decided.producer or ""):
            assert "\x00" not in text
            text.encode()
    else:
        assert decided.recipients
        assert decided.identity


# --- commands --------------------------------------------------------------------------


def ordered(document: object, *, config: Config = CONFIG, **changes: Any) -> Order:
    decided = decide(delivery(document, **changes), config, check, Policy(config))
    assert isinstance(decided, Order), decided
    return decided


def test_a_command_becomes_an_order() -> None:
    order = ordered(
        {
            "producer": "billing",
            "id": "c1",
            "reschedule": {"id": "m1", "send_at": "2030-01-01T00:00:00Z"},
        }
    )
    said = (order.verb, order.producer, order.by, order.target)
    assert said == ("reschedule", "billing", "id", "m1")
    assert (order.identity, order.own_id) == ("key:c1", "c1")
    assert order.when == When(1_893_456_000_000, None, {"codes": 600_000})


def test_a_command_without_an_id_is_known_by_its_delivery() -> None:
    order = ordered({"cancel": {"idempotency_key": "k"}}, identity="1-0", source="redis-stream")
    assert (order.identity, order.producer) == ("redis-stream:1-0", "default")
    assert (order.by, order.target) == ("idempotency_key", "k")


def test_who_may_not_publish_may_not_command() -> None:
    config = CONFIG.model_copy(update={"producers": {"shop": Producer(amqp_users=("shop-app",))}})
    asked = {"producer": "shop", "cancel": {"id": "m1"}}
    assert faults(parked(asked, config=config)) == {
        "producer": "shop is not proven: publish with one of its AMQP users as user_id"
    }
    assert ordered(asked, config=config, user_id="shop-app").producer == "shop"
    assert "producer" in faults(
        parked({**asked, "producer": "other"}, config=config, user_id="shop-app")
    )
