"""Which windows a message's recipient meets: selectors, keys, bypass, the message's own word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mailgate.config.shape import Config
from mailgate.dispatch.throttles import WHOLE, charges
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.queue import Bucket, Head
from mailgate.journal.throttle import Charge
from mailgate.model.state import Lane
from mailgate.model.value import replace

MINUTE, HOUR = 60_000, 3_600_000


def head(**said: Any) -> Head:
    values: dict[str, Any] = {
        "id": 1,
        "message_id": 1,
        "bucket": Bucket(1, BucketKey(Lane.NORMAL, "shop", ("main",))),
        "email": "ann@example.org",
        "producer": "shop",
        "stream": "transactional",
        "sender": "shop@example.com",
        "template": None,
        "tags": None,
        "throttle": None,
        "token": 0,
        "suspect": False,
        "charged": False,
        "expires_at": None,
        "due_at": 0,
    }
    if said.get("tags"):
        said["tags"] = json.dumps(said["tags"])
    if said.get("throttle"):
        said["throttle"] = json.dumps(said["throttle"])
    return Head(**{**values, **said})


def met(rule: dict[str, Any], secret: bytes = b"s", **said: Any) -> tuple[Charge, ...]:
    """The windows of one rule named flood."""
    return charges(head(**said), Config.model_validate({"throttles": {"flood": rule}}), secret)


def keys(found: tuple[Charge, ...]) -> set[str]:
    return {c.key for c in found}


def test_every_window_of_a_rule_is_met_on_one_count() -> None:
    found = met({"limit": "3/10m", "spacing": "10s", "on_limit": "drop"})
    assert [(c.limit, c.window, c.on_limit) for c in found] == [
        (3, 10 * MINUTE, "drop"),
        (1, 10_000, "drop"),
    ]
    assert len(keys(found)) == 1
    assert str(found[0]) == "throttle flood: 3 in 10m"


@pytest.mark.parametrize(
    ("selector", "hit", "miss"),
    [
        ({"streams": ["bulk"]}, {"stream": "bulk"}, {"stream": "codes"}),
        ({"producers": ["shop", "crm"]}, {"producer": "crm"}, {"producer": "billing"}),
        ({"templates": ["news"]}, {"template": "news"}, {"template": None}),
        ({"tags": ["promo", "sale"]}, {"tags": ["x", "sale"]}, {"tags": ["x"]}),
        ({"tags": ["promo"]}, {"tags": ["promo"]}, {"tags": None}),
        (
            {"streams": ["bulk"], "tags": ["promo"]},
            {"stream": "bulk", "tags": ["promo"]},
            {"stream": "bulk", "tags": ["x"]},
        ),
    ],
)
def test_a_rule_counts_what_all_its_selectors_name(
    selector: dict[str, Any], hit: dict[str, Any], miss: dict[str, Any]
) -> None:
    rule = {"limit": 1, "window": "1h", **selector}
    assert len(met(rule, **hit)) == 1
    assert met(rule, **miss) == ()


@pytest.mark.parametrize(
    ("per", "apart"),
    [
        ("recipient", []),
        ("recipient+template", ["template"]),
        ("recipient+producer", ["producer"]),
        ("recipient+key", ["producer", "throttle"]),
    ],
)
def test_what_is_counted_together(per: str, apart: list[str]) -> None:
    rule = {"limit": 1, "window": "1h", "per": per}
    one = keys(met(rule))
    others: dict[str, Any] = {
        "template": "news",
        "producer": "crm",
        "throttle": ["order-7", None, None, "defer", False],
        "tags": ["x"],
        "stream": "bulk",
    }
    for field, value in others.items():
        assert (keys(met(rule, **{field: value})) != one) == (field in apart), field
    # Always by the recipient, however the address is spelled; never with its name.
    assert keys(met(rule, email="ANN@example.org")) == one
    assert keys(met(rule, email="bob@example.org")) != one
    assert keys(met(rule, secret=b"t")) != one


def test_a_changed_limit_goes_on_with_what_was_counted() -> None:
    assert keys(met({"limit": "3/10m"})) == keys(met({"limit": "5/1h", "spacing": "1s"}))


def whole(**sections: Any) -> Config:
    return Config.model_validate(sections)


def test_all_rules_and_the_messages_own_are_met_together() -> None:
    config = whole(
        streams={"transactional": {"throttle": [{"limit": "3/10m"}, {"limit": "20/d"}]}},
        throttles={"all": {"limit": "100/d"}},
    )
    found = charges(head(throttle=["k", 1, 1000, "drop", False]), config, b"s")
    assert [(c.limit, c.rule) for c in found] == [
        (3, "streams.transactional"),
        (20, "streams.transactional"),
        (100, "all"),
        (1, "the message's own"),
    ]
    # Both windows of the stream count the same mails.
    assert len(keys(found)) == 3


def test_a_critical_stream_meets_only_its_own_rules_its_hard_cap_and_the_messages() -> None:
    codes = {"bypass_throttles": True, "hard_cap": "30/h", "throttle": [{"spacing": "1s"}]}
    config = whole(
        streams={"codes": codes},
        throttles={"all": {"limit": "1/d"}},
    )
    own = ["k", 1, 1000, "drop", False]
    found = charges(head(stream="codes", throttle=own), config, b"s")
    assert [(c.limit, c.window, c.on_limit) for c in found] == [
        (1, 1000, "defer"),
        (30, HOUR, "defer"),
        (1, 1000, "drop"),
    ]


def test_a_message_that_replaces_the_rules_still_meets_a_hard_cap() -> None:
    config = whole(throttles={"all": {"limit": "1/d"}})
    found = charges(head(throttle=["k", 5, 1000, "defer", True]), config, b"s")
    assert [(c.limit, c.rule) for c in found] == [(100, "hard cap"), (5, "the message's own")]
    found = charges(head(throttle=["", None, None, "defer", True]), config, b"s")
    assert [c.rule for c in found] == ["hard cap"]


def test_who_was_charged_meets_nothing() -> None:
    assert met({"limit": "1/d"}, charged=True) == ()


def test_what_gathers_names_the_digest_that_shapes_it() -> None:
    rule = {"limit": "1/h", "on_limit": "digest"}
    [found] = met(rule)
    assert found.digest is not None
    assert found.digest[0] == "throttled"
    said = {"throttles": {"flood": {**rule, "digest": "alerts"}}, "digests": {"alerts": {"cap": 5}}}
    own = head(throttle=["disk", 1, HOUR, "digest", False])
    by_rule, by_message = charges(own, Config.model_validate(said), b"s")
    assert by_rule.digest is not None
    assert (by_rule.digest[0], by_rule.digest[1].cap) == ("alerts", 5)
    assert by_message.digest is not None
    assert by_message.digest[0] == "throttled"


def test_the_mail_of_a_digest_waits_and_goes_into_no_other() -> None:
    config = Config.model_validate({"throttles": {"flood": {"limit": "1/h", "on_limit": "digest"}}})
    whole = replace(head(), throttle=WHOLE)
    assert [c.on_limit for c in charges(whole, config, b"s")] == ["defer"]
