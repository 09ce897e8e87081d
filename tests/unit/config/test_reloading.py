"""What of a new configuration is taken while a process runs, and what is left for a restart."""

from __future__ import annotations

from typing import Any

import pytest

from mailgate.config.reloading import TAKEN, fingerprint, renewed
from mailgate.config.shape import Config

BASE: dict[str, Any] = {
    "broker": {"url": "redis://127.0.0.1/0"},
    "relays": {"main": {"host": "smtp.example.com", "rate": "50/s"}},
    "streams": {"bulk": {"lane": "bulk"}},
    "producers": {"shop": {"weight": 2, "queue": "shop.mail"}},
}


def config(**changes: Any) -> Config:
    return Config.model_validate({**BASE, **changes})


OLD = config()


def test_nothing_new_is_nothing_to_do():
    renewal = renewed(OLD, config())
    assert (renewal.config, renewal.taken, renewal.restart, renewal.new) == (OLD, (), (), ())


@pytest.mark.parametrize(
    ("changes", "taken", "restart"),
    [
        ({"limits": {"global": "9/s"}}, ["limits.global"], []),
        ({"streams": {"bulk": {"lane": "normal"}}}, ["streams.bulk"], []),
        ({"limits": {"domain": {"a.example": "1/s"}}}, ["limits.domain"], []),
        ({"retention": {"messages": "9d"}}, ["retention.messages"], []),
        ({"broker": {"url": "redis://elsewhere/0"}}, [], ["broker.url"]),
        ({"worker": {"conversations": 7}}, [], ["worker.conversations"]),
        ({"sandbox": {"mode": "capture"}}, [], ["sandbox.mode"]),
        (
            {"intake": {"max_bytes": 2048, "batch": 3, "queue": "other"}},
            ["intake.max_bytes"],
            ["intake.queue", "intake.batch"],
        ),
        (
            {"relays": {"main": {"host": "other.example.com", "rate": "10/s"}}},
            ["relays.main"],
            ["relays.main.host"],
        ),
        (
            {"producers": {"shop": {"weight": 3, "queue": "q"}}},
            ["producers.shop"],
            ["producers.shop.queue"],
        ),
    ],
)
def test_what_changes_is_taken_or_named(
    changes: dict[str, Any], taken: list[str], restart: list[str]
) -> None:
    renewal = renewed(OLD, config(**changes))
    assert (list(renewal.taken), list(renewal.restart)) == (taken, restart)
    assert (renewal.config == OLD) is (not taken)


def test_a_relay_keeps_its_connections_and_takes_its_rate():
    renewal = renewed(OLD, config(relays={"main": {"host": "x.example", "rate": "9/s"}}))
    relay = renewal.config.relays["main"]
    assert (relay.host, str(relay.rate)) == ("smtp.example.com", "9/s")


def test_a_new_relay_is_told_apart_and_one_that_is_gone_is_gone():
    relays = {"second": {"host": "second.example"}}
    renewal = renewed(OLD, config(relays=relays))
    assert renewal.new == ("second",)
    assert list(renewal.config.relays) == ["second"]


def test_a_relay_that_comes_back_keeps_what_its_connections_had():
    gone = renewed(OLD, config(relays={"second": {"host": "second.example"}})).config
    back = {"main": {"host": "moved.example"}, "second": {"host": "second.example"}}
    renewal = renewed(gone, config(relays=back), OLD.relays)
    assert renewal.new == ()
    assert renewal.config.relays["main"].host == "smtp.example.com"
    assert "relays.main.host" in renewal.restart


def test_the_order_of_relays_and_rules_is_a_change_too():
    main, second = {"host": "smtp.example.com", "rate": "50/s"}, {"host": "second.example"}
    two = config(relays={"main": main, "second": second})
    renewal = renewed(two, config(relays={"second": second, "main": main}))
    assert (renewal.taken, list(renewal.config.relays)) == (("relays",), ["second", "main"])
    one, other = {"codes": ["550"], "then": "defer"}, {"codes": ["550"], "then": "fail"}
    ruled = config(rules={"a": one, "b": other})
    renewal = renewed(ruled, config(rules={"b": other, "a": one}))
    assert (renewal.taken, list(renewal.config.rules)) == (("rules",), ["b", "a"])
    assert fingerprint(ruled) != fingerprint(renewal.config)


def test_a_producers_queue_waits_for_a_restart_and_the_rest_is_taken():
    renewal = renewed(OLD, config(producers={"shop": {"weight": 3, "queue": "q"}}))
    shop = renewal.config.producers["shop"]
    assert (shop.weight, shop.queue) == (3, "shop.mail")


def test_everything_that_is_said_to_be_taken_is_there():
    assert set(TAKEN) <= set(Config.model_fields)


def test_the_fingerprint_knows_what_processes_share_and_no_secret():
    assert fingerprint(OLD) == fingerprint(config())
    assert fingerprint(OLD) != fingerprint(config(limits={"global": "1/s"}))
    here, there = config(state_dir="/a"), config(state_dir="/b", log={"level": "debug"})
    assert fingerprint(here) == fingerprint(there)
    one = config(broker={"url": "redis://u:one@127.0.0.1/0"})
    other = config(broker={"url": "redis://u:two@127.0.0.1/0"})
    assert fingerprint(one) == fingerprint(other)
