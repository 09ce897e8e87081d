"""What `config check` warns of and `config show` hides."""

from __future__ import annotations

import json

import pytest

from mailgate.config.load import masked, warnings
from mailgate.config.shape import Config


def config(**said: object) -> Config:
    return Config.model_validate(said)


def test_the_embedded_defaults_are_not_dangerous():
    assert warnings(Config()) == []


def test_a_set_up_with_tls_everywhere_is_not_dangerous():
    assert warnings(
        config(
            broker={"url": "amqps://u:p@mq.example.com/v"},
            journal={"url": "postgresql+psycopg://db.example.com/m?sslmode=verify-full"},
            limiter={"url": "rediss://r.example.com/0"},
            relays={"main": {"host": "smtp.example.com", "rate": "14/s"}},
            limits={"global": "50/s"},
        )
    ) == []  # fmt: skip


FAR = {"main": {"host": "smtp.example.com"}}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"relays": {"a": {"host": "far.example", "security": "none"}}}, "relays.a.security"),
        ({"relays": {"a": {"host": "far.example", "verify": False}}}, "relays.a.verify"),
        ({"relays": {"a": {"host": "h.example", "dot_timeout": "30s"}}}, "relays.a.dot_timeout"),
        ({"relays": {"a": {"host": "h.example", "max_age": "5s"}}}, "relays.a.idle"),
        ({"broker": {"url": "amqp://localhost"}}, "relays is empty"),
        (
            {"broker": {"url": "amqp://localhost"}, "relays": FAR, "limits": {"global": "1/s"}},
            "limiter.url is not set",
        ),
        (
            {"broker": {"url": "amqps://far.example"}, "relays": FAR},
            "journal.url is SQLite",
        ),
        (
            {"journal": {"url": "postgresql+psycopg://far.example/m"}, "relays": FAR},
            "journal.url talks to far.example without TLS",
        ),
        ({"limiter": {"url": "redis://far.example"}}, "limiter.url talks to far.example"),
        (
            {"limiter": {"url": "rediss://far.example/0?ssl_cert_reqs=none"}},
            "limiter.url does not verify the certificate of far.example",
        ),
        ({"intake": {"url": "amqp://localhost;amqp://far.example"}}, "intake.url talks to far"),
        ({"worker": {"deadline": "20s"}}, "worker.deadline"),
        ({"streams": {"bulk": {"retry": {"give_up": "1m"}}}}, "streams.bulk.retry.give_up"),
        ({"streams": {"codes": {"retry": {"first": "1h"}}}}, "streams.codes.retry.first"),
        ({"streams": {"codes": {"expires_after": "1d"}}}, "streams.codes.expires_after"),
        ({"inbox": {"host": "0.0.0.0"}}, "inbox.host"),
    ],
)
def test_what_is_dangerous_is_warned_of_by_its_key(said, words):
    assert any(words in warning for warning in warnings(config(**said)))


def test_mail_in_clear_to_this_machine_is_no_danger():
    assert warnings(config(relays={"a": {"host": "127.0.0.1", "security": "none"}})) == []


def test_the_shown_configuration_is_plain_and_holds_no_password():
    shown = masked(
        config(
            broker={"url": "amqp://ann:hunter2@a;amqp://ann:hunter2@b"},
            journal={"url": "postgresql+psycopg://h/d?password=hunter2"},
            relays={"main": {"host": "h", "rate": "14/s burst 3"}},
            streams={"x": {"from": "Ann <ann@example.com>"}},
        )
    )
    text = json.dumps(shown)
    assert "hunter2" not in text
    assert shown["broker"]["url"] == "amqp://ann:***@a;amqp://ann:***@b"
    assert shown["relays"]["main"]["rate"] == "14/s burst 3"
    assert shown["streams"]["x"]["from"] == "Ann <ann@example.com>"
    assert shown["worker"]["deadline"] == "5s"


def test_what_is_shown_can_be_read_back():
    said = config(relays={"main": {"host": "h"}}, streams={"x": {"from": "ann@example.com"}})

    def set_only(value: object) -> object:
        if isinstance(value, dict):
            return {k: set_only(v) for k, v in value.items() if v is not None}
        return value

    assert Config.model_validate(set_only(masked(said))) == said
