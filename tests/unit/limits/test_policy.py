"""Which limits a message falls under, and what they are called."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mailgate.config.shape import Config
from mailgate.config.terms import Rate
from mailgate.journal.asides import By, labelled, meant
from mailgate.limits.policy import Policy

LIMITS: dict[str, Any] = {
    "relays": {
        "one": {
            "host": "one.example",
            "rate": "60/s",
            "domains": {"gmail.com": {"rate": "20/s"}, "x.example": "1/m"},
        },
        "two": {"host": "two.example"},
    },
    "limits": {
        "global": "100/s",
        "producer": {"shop": "10/s"},
        "sender": {"News@Example.com": "5/d", "example.com": "50/h"},
        "domain": {"GMail.com": {"rate": "30/s"}, "bücher.example": "2/s"},
    },
}


def policy(**said: Any) -> Policy:
    return Policy(Config.model_validate({**LIMITS, **said}))


def keys(*asked: Any) -> list[str]:
    return [key for key, _ in policy().ask(*asked).keys]


def test_all_limits_of_a_message_are_asked_together() -> None:
    assert keys("one", "gmail.com", "shop", "news@example.com", True) == [
        "global",
        "relay:one",
        "domain:gmail.com",
        "relay:one domain:gmail.com",
        "sender:news@example.com",
        "sender:example.com",
        "producer:shop",
    ]
    assert keys("two", "gmail.com", "other", "example.com", True) == [
        "global",
        "domain:gmail.com",
        "sender:example.com",
    ]
    assert keys("two", "", "shop", "", False) == ["global"]
    rates = dict(policy().ask("one", "x.example", "", "", True).keys)
    assert rates["relay:one domain:x.example"] == Rate(1, 60.0)


def test_without_limits_nothing_is_asked() -> None:
    free = policy(limits={}, relays={"one": {"host": "one.example"}})
    assert free.ask("one", "", "shop", "", True).keys == ()
    assert (free.separates, list(free.rates())) == (False, [])


def test_destinations_and_senders_are_known_in_their_wire_form() -> None:
    p = policy()
    assert p.destination("xn--bcher-kva.example") == "xn--bcher-kva.example"
    assert (p.destination("gmail.com"), p.destination("example.org")) == ("gmail.com", "")
    assert p.destination("mail.gmail.com") == ""
    assert p.identity("NEWS@example.com") == "news@example.com"
    assert p.identity("shop@example.com") == "example.com"
    assert p.identity("shop@example.org") == ""


def test_every_limit_has_a_name() -> None:
    names = [name for name, _ in policy().rates()]
    assert len(names) == len(set(names)) == 9


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"domain": {"no domain": "1/s"}}, "limits.domain"),
        ({"domain": {"a.example": "often"}}, "limits.domain.`a.example`.rate"),
        ({"sender": {"a@b@c": "1/s"}}, "limits.sender"),
        ({"producer": {"No Name": "1/s"}}, "limits.producer"),
    ],
)
def test_a_wrong_limit_is_named(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        policy(limits=limits)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("key", "by"),
    [
        ("global", None),
        ("relay:one", None),
        ("producer:shop", None),
        ("slow:relay one", None),
        ("domain:gmail.com", "domain"),
        ("relay:one domain:gmail.com", "domain"),
        ("sender:news@example.com", "sender"),
    ],
)
def test_who_waits_for_a_limit_of_some_waits_apart(key: str, by: str | None) -> None:
    assert Policy.separating(key) == by


def test_a_label_says_all_that_its_rows_have_in_common() -> None:
    both = labelled(labelled("", By.SENDER, "a@x.example"), By.DOMAIN, "gmail.com")
    assert both == "gmail.com sender=a@x.example"
    assert labelled(both, By.DOMAIN, "gmail.com") == both
    assert meant(both) == ((By.DOMAIN, "gmail.com"), (By.SENDER, "a@x.example"))
    assert meant("") == ()
