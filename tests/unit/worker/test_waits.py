"""The short cuts through waits of Celery that wait for nothing."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from billiard import pool

from mailgate.worker.waits import leave_unheard

_LIMIT = "GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT"


def test_a_child_does_not_wait_long_for_a_parent_that_reads_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It is put back afterwards; a name that billiard no longer has would be an error here.
    monkeypatch.setattr(pool, _LIMIT, getattr(pool, _LIMIT))
    leave_unheard()
    child = SimpleNamespace(on_ready_counter=SimpleNamespace(value=0))
    begun = time.monotonic()
    assert pool.Worker._ensure_messages_consumed(child, completed=1) is False
    assert 0.5 < time.monotonic() - begun < 5
