"""The section of the traces. Never traces anything."""

from __future__ import annotations

from pydantic import Field

from mailgate.config.terms import Section


class Tracing(Section):
    """OpenTelemetry spans of messages that came with a ``traceparent``."""

    enabled: bool = Field(
        False,
        description="Needs the extra mailgate[otel]; where spans go, OTEL_… variables say.",
    )
