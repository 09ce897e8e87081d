"""OpenTelemetry spans, where they are asked for: what became of a traced message, in its trace.

Only messages that came with a ``traceparent`` have spans. They are made after the fact, a
batch at a time, so nothing of this stands between a message and its relay.
"""

from __future__ import annotations

import sys

_NAME = "opentelemetry"


def withhold() -> None:
    """Have nobody import OpenTelemetry until ``allow``.

    Where it is installed redis-py does, for metrics that nobody asked for here: 4 MiB and
    50 ms in every process.
    """
    sys.modules.setdefault(_NAME, None)  # type: ignore[arg-type]


def allow() -> None:
    """Let OpenTelemetry be imported, if it is there."""
    if sys.modules.get(_NAME, sys) is None:
        del sys.modules[_NAME]
