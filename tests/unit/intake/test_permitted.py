"""Who a delivery is from, and what that producer may publish: each rule by its words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mailgate.config.load import ConfigError, load
from mailgate.config.shape import Config
from mailgate.intake.accept import decide
from mailgate.intake.door import Delivery
from mailgate.journal.arrivals import Arrival, NewParked
from mailgate.limits.policy import Policy

SMALL = {"to": "ann@example.org", "subject": "hi", "text": "there", "from": "b@example.com"}


def config(default: str = "default", unknown: str | None = None, **producers: Any) -> Config:
    return Config.model_validate(
        {
            "relays": {"one": {"host": "one.example"}},
            "default_producer": default,
            "intake": {"unknown_producers": unknown},
            "producers": producers,
        }
    )


def came(of: Config, document: object = SMALL, **envelope: Any) -> Arrival | NewParked:
    values: dict[str, Any] = {"source": "amqp", "identity": None, "redelivered": False}
    values |= {"refusal": None, "handle": 5, "body": json.dumps(document).encode()} | envelope
    return decide(Delivery(**values), of, lambda _template, _data: [], Policy(of))


def producer(of: Config, claimed: str | None = None, **envelope: Any) -> str:
    decided = came(of, SMALL | ({"producer": claimed} if claimed else {}), **envelope)
    assert isinstance(decided, Arrival), decided.faults
    return decided.producer


def refused(of: Config, document: object = SMALL, **envelope: Any) -> tuple[str, str]:
    """The field and the rule of the one fault."""
    decided = came(of, document, **envelope)
    assert isinstance(decided, NewParked)
    [fault] = json.loads(decided.faults)
    return fault["field"], fault["rule"]


def named(name: str, **changes: Any) -> dict[str, Any]:
    return SMALL | {"producer": name} | changes


# --- unknown producers ---------------------------------------------------------------


@pytest.mark.parametrize("section", [{"weight": 3}, {"throttle": "any"}])
def test_a_section_that_only_shares_closes_nothing(section) -> None:
    of = config(shop=section)
    assert (producer(of), producer(of, "other")) == ("default", "other")


@pytest.mark.parametrize(
    "section",
    [
        {"senders": ["*@example.com"]},
        {"streams": ["bulk"]},
        {"templates": ["welcome"]},
        {"max_bytes": 2000},
        {"max_recipients": 3},
        {"amqp_users": ["shop"]},
        {"queue": "mailgate.inbox.shop"},
    ],
)
def test_one_section_about_who_may_publish_shuts_out_unknown_producers(section) -> None:
    of = config(shop=section)
    rule = "is not configured, and only known producers may publish"
    assert refused(of, named("other")) == ("producer", rule)
    rule = "is required, since only known producers may publish"
    assert refused(of) == ("producer", rule)
    assert producer(config(shop=section, unknown="accept"), "other") == "other"


def test_unknown_producers_are_shut_out_when_that_is_said() -> None:
    of = config(unknown="refuse", shop={"weight": 3})
    assert refused(of, named("other"))[0] == "producer"
    assert producer(of, "shop") == "shop"


def test_a_message_without_a_name_is_of_the_default_producer_if_that_has_a_section() -> None:
    assert producer(config(default="shop", shop={"max_recipients": 3})) == "shop"


# --- proof ---------------------------------------------------------------------------

PROVEN = config(
    billing={"amqp_users": ["bill", "bob"]},
    shop={"queue": "mailgate.inbox.shop"},
    both={"amqp_users": ["both"], "queue": "mailgate.inbox.both"},
    open={},
)


@pytest.mark.parametrize(
    ("claimed", "envelope", "known"),
    [
        ("billing", {"user_id": "bob"}, "billing"),
        (None, {"user_id": "bill"}, "billing"),
        ("shop", {"producer": "shop"}, "shop"),
        (None, {"producer": "shop"}, "shop"),
        (None, {"producer": "shop", "source": "redis-list"}, "shop"),
        ("open", {}, "open"),
        ("open", {"user_id": "somebody"}, "open"),
        ("both", {"user_id": "both"}, "both"),
        (None, {"user_id": "both", "producer": "both"}, "both"),
        # There are no users to name on Redis: there the queue is the proof.
        (None, {"producer": "both", "source": "redis-stream"}, "both"),
    ],
)
def test_the_broker_vouches_for_a_producer(claimed, envelope, known) -> None:
    assert producer(PROVEN, claimed, **envelope) == known


@pytest.mark.parametrize(
    ("claimed", "envelope", "rule"),
    [
        ("billing", {}, "billing is not proven: publish with one of its AMQP users as user_id"),
        ("billing", {"user_id": "somebody"}, "billing is not proven: publish with one"),
        ("shop", {}, "shop is not proven: publish to its own queue"),
        ("both", {}, "both is not proven: publish with one of its AMQP users as user_id or"),
        ("open", {"user_id": "bill"}, "must be billing or left out: the broker says so"),
        ("billing", {"producer": "shop"}, "must be shop or left out: the broker says so"),
        ("open", {"producer": "shop"}, "must be shop or left out: the broker says so"),
        # Whoever may write to the default exchange of RabbitMQ reaches every queue.
        (None, {"producer": "both"}, "came by the queue of producer both from no AMQP user"),
        (None, {"producer": "shop", "user_id": "bill"}, "came by the queue of producer shop"),
    ],
)
def test_a_name_that_the_broker_does_not_vouch_for_is_refused(claimed, envelope, rule) -> None:
    field, said = refused(PROVEN, named(claimed) if claimed else SMALL, **envelope)
    assert field == "producer"
    assert said.startswith(rule)


def test_the_default_producer_wants_proof_too() -> None:
    of = config(default="billing", billing={"amqp_users": ["bill"]})
    assert refused(of)[1].startswith("billing is not proven")


@pytest.mark.parametrize("wrong", [{"nonsense": 1}, {}])
def test_what_is_parked_is_never_noted_under_a_name_that_was_not_proven(wrong) -> None:
    decided = came(PROVEN, named("billing", **wrong))
    assert isinstance(decided, NewParked)
    assert decided.producer is None
    decided = came(PROVEN, SMALL | {"nonsense": 1}, user_id="bill")
    assert isinstance(decided, NewParked)
    assert decided.producer == "billing"


# --- what it may publish -------------------------------------------------------------


@pytest.mark.parametrize("sender", ["bill@example.com", "BILL@EXAMPLE.COM", "any@news.example"])
def test_a_sender_that_is_allowed(sender) -> None:
    of = config(shop={"senders": ["bill@example.com", "*@news.example"]})
    assert isinstance(came(of, named("shop", **{"from": sender})), Arrival)


@pytest.mark.parametrize("sender", ["eve@example.com", "any@sub.news.example", "a@xnews.example"])
def test_a_sender_that_is_not_allowed(sender) -> None:
    of = config(shop={"senders": ["bill@example.com", "*@news.example"]})
    rule = "is no address that producer shop may send as"
    assert refused(of, named("shop", **{"from": sender})) == ("from", rule)


def test_a_stream_that_is_not_allowed_also_when_it_is_the_default() -> None:
    of = config(shop={"streams": ["bulk"]})
    rule = "is not for producer shop, which may use: bulk"
    assert refused(of, named("shop")) == ("stream", rule)
    assert isinstance(came(of, named("shop", stream="bulk")), Arrival)


def test_only_the_templates_that_are_allowed_and_no_text_of_its_own() -> None:
    of = config(shop={"templates": ["welcome"]})
    mail = {"producer": "shop", "to": "ann@example.org", "from": "b@example.com"}
    assert isinstance(came(of, mail | {"template": "welcome"}), Arrival)
    rule = "is not for producer shop, which may use: welcome"
    assert refused(of, mail | {"template": "invoice"}) == ("template", rule)
    rule = "is required for producer shop, which may use: welcome"
    assert refused(of, named("shop")) == ("template", rule)


def test_a_message_that_is_too_large() -> None:
    of = config(shop={"max_bytes": 1024})
    size = 1024 - len(json.dumps(named("shop", text="")))
    assert isinstance(came(of, named("shop", text="x" * size)), Arrival)
    rule = "is larger than the 1024 bytes that producer shop may publish"
    assert refused(of, named("shop", text="x" * (size + 1))) == ("", rule)


def test_too_many_recipients_are_counted_over_to_cc_and_bcc() -> None:
    of = config(shop={"max_recipients": 3})
    to = ["a@example.org", "b@example.org"]
    assert isinstance(came(of, named("shop", to=to, cc="c@example.org")), Arrival)
    rule = "are 4 with cc and bcc: producer shop may name 3 in a message"
    four = named("shop", to=to, cc="c@example.org", bcc="d@example.org")
    assert refused(of, four) == ("to", rule)


def test_too_many_recipients_of_their_own() -> None:
    of = config(shop={"max_recipients": 2})
    mail = named("shop", recipients=[{"email": f"{n}@example.org"} for n in "abc"])
    del mail["to"]
    rule = "are 3: producer shop may name 2 in a message"
    assert refused(of, mail) == ("recipients", rule)


# --- sections that contradict each other ----------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[producers.a]\nstreams = ['none']", "producers.a.streams names 'none', which is no str"),
        (
            "[producers.a]\namqp_users = ['u']\n[producers.b]\namqp_users = ['u']",
            "producers.b.amqp_users names 'u', who is producer a already: a user is one producer",
        ),
        (
            "[producers.a]\nqueue = 'mailgate.inbox'",
            "producers.a.queue is the same as intake.queue, on RabbitMQ or on Redis",
        ),
        (
            "[producers.a]\nqueue = 'mailgate.inbox.list'",
            "producers.a.queue is the same as intake.queue, on RabbitMQ or on Redis",
        ),
        (
            "[producers.a]\nqueue = 'x.a'\n[producers.b]\nqueue = 'x.a'",
            "producers.b.queue is the same as producers.a.queue, on RabbitMQ or on Redis",
        ),
        ("[producers.a]\nsenders = ['a*@example.com']", "producers.a.senders"),
    ],
)
def test_sections_that_cannot_be_are_refused_by_key_and_rule(tmp_path, text, words) -> None:
    file = tmp_path / "mailgate.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, {}, cwd=tmp_path)
    assert words in str(caught.value)
