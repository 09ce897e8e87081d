"""A plugin for pytest: ``mailgate_outbox`` keeps what a test would publish.

Owns one fixture, loaded by pytest itself wherever mailgate is installed. Each message is
checked against the contract, as the gateway would.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

from mailgate.client.capture import Outbox, captured

__all__ = ["Outbox", "mailgate_outbox"]


@pytest.fixture
def mailgate_outbox() -> Iterator[Outbox]:
    """What was published during the test, by whichever client; nothing reaches a broker.

    Django's mail is in it too, although its test runner sets another e-mail backend.
    """
    with contextlib.ExitStack() as stack:
        conf = sys.modules.get("django.conf")
        if conf is not None and conf.settings.configured:
            from django.test.utils import override_settings

            backend = "mailgate.client.django.EmailBackend"
            stack.enter_context(override_settings(EMAIL_BACKEND=backend))
        yield stack.enter_context(captured())
