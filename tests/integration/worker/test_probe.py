"""A clock that says once that its broker is away, and once that it is back."""

from __future__ import annotations

import logging

import pytest

from mailgate.worker import probe
from tests.servers import Valkey


def test_a_broker_that_goes_and_comes_is_told_once_each(
    valkey: Valkey, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_EVERY", 0.0)
    monkeypatch.setattr(probe, "_CONNECT", 0.3)
    watch = probe.Watch(valkey.broker_url)
    with caplog.at_level(logging.INFO, logger="mailgate.beat"):
        watch.look()
        assert caplog.messages == []
        valkey.stop()
        watch.look()
        watch.look()
        valkey.start()
        watch.look()
        watch.look()
    away, back = caplog.messages
    assert away.startswith("the broker cannot be reached (")
    assert back.startswith("the broker is back, after ")
