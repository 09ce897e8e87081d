"""Which URLs may stand for broker, journal and limiter, and how they are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailgate.config import urls


@pytest.mark.parametrize(
    ("said", "canonical"),
    [
        ("redis://host", None),
        ("redis://:pw@host:6379/3", None),
        ("rediss://ann:pw@host/0?ssl_cert_reqs=required", None),
        ("redis+socket:///run/r.sock?virtual_host=2", None),
        ("unix:///run/r.sock", "redis+socket:///run/r.sock"),
        ("unix://:pw@/run/r.sock?db=2", "redis+socket://:pw@/run/r.sock?virtual_host=2"),
        ("amqp://ann:pw@host:5672//", None),
        ("amqps://ann:p%40w@[::1]/vhost", None),
        ("amqp://a ; amqp://b", "amqp://a;amqp://b"),
        ("redis://a;rediss://b", None),
        ("sentinel://:pw@a:26379/0;sentinel://b:26379", None),
    ],
)
def test_broker_urls_get_one_spelling(said, canonical):
    assert urls.broker(said) == (canonical or said)


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ("kafka://host", "begins with 'kafka://'"),
        ("host:6379", "is not a URL"),
        ("redis://", "must name a host"),
        ("redis://host/name", "number of a database"),
        ("redis://host:99999", "percent-encoded"),
        ("amqp://ann:p/w@host", "percent-encoded"),
        ("amqp://ann:p#w@host", "percent-encoded"),
        ("redis+socket://run/r.sock", "three slashes"),
        ("unix:///", "absolute path"),
        ("redis://a;amqp://b", "mixes kinds"),
        ("redis://a;", "empty URL"),
        ("redis://a b", "spaces"),
    ],
)
def test_a_broker_url_that_cannot_work_is_refused_with_the_reason(said, rule):
    with pytest.raises(urls.UrlError, match=rule):
        urls.broker(said)


def test_the_limiter_takes_redis_or_the_journal_and_nothing_else():
    assert urls.limiter("journal") == "journal"
    assert urls.limiter("redis://h/1") == "redis://h/1"
    with pytest.raises(urls.UrlError, match="'journal'"):
        urls.limiter("amqp://h")


@pytest.mark.parametrize(
    ("said", "canonical"),
    [
        ("sqlite:///j.db", "sqlite:////base/j.db"),
        ("sqlite:////var/j.db?timeout=5", "sqlite:////var/j.db?timeout=5"),
        ("postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgres://h/d?sslmode=require", "postgresql+psycopg://h/d?sslmode=require"),
        ("postgresql+psycopg:///d?host=/run/pg", "postgresql+psycopg:///d?host=/run/pg"),
    ],
)
def test_journal_urls_get_one_spelling(said, canonical):
    assert urls.journal(said, Path("/base")) == canonical


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ("mysql://h/d", "begins with 'mysql://'"),
        ("postgresql+asyncpg://h/d", "begins with"),
        ("sqlite://", "would lose mail"),
        ("sqlite:///:memory:", "would lose mail"),
        ("sqlite://j.db", "three slashes"),
        ("postgresql://h", "must name a database"),
        ("postgresql:///d", "must name a host"),
    ],
)
def test_a_journal_url_that_cannot_work_is_refused_with_the_reason(said, rule):
    with pytest.raises(urls.UrlError, match=rule):
        urls.journal(said, Path("/base"))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("redis://:hunter2@h/0", "redis://:***@h/0"),
        ("redis://hunter2@h", "redis://hunter2@h"),
        ("amqp://ann:hunter2@a;amqp://ann:hunter2@b", "amqp://ann:***@a;amqp://ann:***@b"),
        ("postgresql://ann@h/d?password=hunter2&x=1", "postgresql://ann@h/d?password=***&x=1"),
        ("redis://h", "redis://h"),
    ],
)
def test_a_url_is_shown_without_its_password(said, shown):
    assert urls.mask(said) == shown


@pytest.mark.parametrize(
    ("host", "near"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
     ("LOCALHOST.", True), ("10.0.0.1", False), ("mail.example.com", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_what_stays_on_this_machine(host, near):
    assert urls.is_loopback(host) is near
