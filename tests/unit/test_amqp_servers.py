"""Where doors, events, rings and producers go to: what a URL says, spelled for py-amqp."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import pyamqp

from mailgate.amqp_servers import LOGIN, servers
from mailgate.worker.broker import broker_settings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://h", {"host": "h:5672", "virtual_host": "/", "userid": "guest", "ssl": False}),
        ("amqp://u:p%40ss@h:7/", {"host": "h:7", "password": "p@ss", "virtual_host": "/"}),
        ("amqp://me%40here:p@h/mail", {"userid": "me@here", "virtual_host": "mail"}),
        ("amqp://h/%2Fmail", {"virtual_host": "/mail"}),
        ("amqp://h//", {"virtual_host": "/"}),
        ("amqp://[::1]:7", {"host": "[::1]:7"}),
        ("amqp://[fe80::1%25eth0]:7", {"host": "[fe80::1%eth0]:7"}),
        ("amqps://h", {"host": "h:5671"}),
        ("amqp://h?login_method=EXTERNAL", {"login_method": "EXTERNAL"}),
    ],
)
def test_what_a_url_means(url: str, expected: dict[str, object]) -> None:
    [found] = servers(url)
    assert found.items() >= expected.items()


def test_certificates_are_verified_unless_the_url_says_otherwise() -> None:
    [found] = servers("amqps://h")
    assert found["ssl"] == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "h"}
    [found] = servers("amqps://h?ssl_cert_reqs=none")
    assert found["ssl"] == {"cert_reqs": ssl.CERT_NONE}
    [found] = servers("amqps://h?ssl_cert_reqs=CERT_OPTIONAL")
    assert found["ssl"]["cert_reqs"] == ssl.CERT_OPTIONAL


def test_each_of_several_has_its_own_name_and_what_is_said_of_tls_holds_for_all() -> None:
    one, two = servers("amqps://one/v?ssl_ca_certs=/ca.pem;amqps://u:p@two:7/w")
    assert (one["host"], one["virtual_host"], one["userid"]) == ("one:5671", "v", "guest")
    assert (two["host"], two["virtual_host"], two["userid"]) == ("two:7", "w", "u")
    for each, name in ((one, "one"), (two, "two")):
        assert (each["ssl"]["ca_certs"], each["ssl"]["server_hostname"]) == ("/ca.pem", name)


def test_one_that_is_not_verified_leaves_the_others_verified() -> None:
    one, two = servers("amqps://one?ssl_ca_certs=/a.pem;amqps://two?ssl_cert_reqs=none")
    assert one["ssl"]["cert_reqs"] == ssl.CERT_REQUIRED
    assert two["ssl"] == {"cert_reqs": ssl.CERT_NONE, "ca_certs": "/a.pem"}
    one, two = servers("amqps://one?ssl_ca_certs=/a.pem;amqps://two?ssl_ca_certs=/b.pem")
    assert (one["ssl"]["ca_certs"], two["ssl"]["ca_certs"]) == ("/a.pem", "/b.pem")


@pytest.mark.parametrize(
    "url",
    [
        "amqp://h",
        "amqp://h/",
        "amqp://h//",
        "amqp://me%40here:p%3Ass@h:7/%2Fmail",
        "amqp://[::1]:7/mail",
        "amqp://h/mail?login_method=EXTERNAL",
        "amqps://h",
        "amqps://u:p@h:7/v?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
        "amqps://h?ssl_cert_reqs=none",
    ],
)
def test_a_worker_reads_it_alike(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery leaves that to kombu."""
    asked: dict[str, Any] = {}

    class Recorder(pyamqp.Connection):
        def __init__(self, **options: Any) -> None:
            asked.update(options)
            super().__init__(**options)

        def connect(self, callback: Any = None) -> None: ...

    monkeypatch.setattr(pyamqp.Transport, "Connection", Recorder)
    settings = broker_settings(url, 60)
    Connection(
        settings["broker_url"], ssl=settings.get("broker_use_ssl", False)
    ).transport.establish_connection()
    [ours] = servers(url)
    # py-amqp reads both, and an IPv6 address with or without its brackets.
    asked["host"] = asked["host"].replace("::1:", "[::1]:")
    if asked["ssl"] and "server_hostname" in asked["ssl"]:
        # To be filled with the host, by py-amqp.
        asked["ssl"] = {**asked["ssl"], "server_hostname": "h"}
    assert {key: asked[key] for key in LOGIN | ours} == LOGIN | ours
