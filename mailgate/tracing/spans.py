"""The two spans of a message: that it was accepted, and each attempt.

Owns OpenTelemetry, which is an optional extra and is imported only when tracing is on.
Spans are children of the producer's own; they tell relay, phase, code and ids, and never
an address, a subject or a relay's words.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mailgate import __version__, tracing

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

#: Seconds that the last spans get to leave when a process ends.
_GRACE = 3.0


class TracingMissing(Exception):
    """tracing.enabled is true, but the extra is not installed: pip install 'mailgate[otel]'."""


class Tracing:
    """Makes spans with ``provider``; called from one thread."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("mailgate", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._consumer, self._client = SpanKind.CONSUMER, SpanKind.CLIENT
        self._error = Status(StatusCode.ERROR)

    @classmethod
    def to_collector(cls, process: str) -> Tracing:
        """Spans go by OTLP to where OpenTelemetry's own variables (``OTEL_…``) say.

        Call it after a fork. Raises ``TracingMissing``.
        """
        tracing.allow()
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise TracingMissing(TracingMissing.__doc__) from None
        named = {"service.name": "mailgate", "service.version": __version__}
        resource = Resource.create({**named, "mailgate.process": process})
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def accepted(
        self, traceparent: str, message_id: str, producer: str, stream: str, at: tuple[int, int]
    ) -> None:
        """``at`` is begin and end in nanoseconds since 1970."""
        attributes = {
            "mailgate.message_id": message_id,
            "mailgate.producer": producer,
            "mailgate.stream": stream,
        }
        span = self._tracer.start_span(
            "mailgate accept",
            self._parent(traceparent),
            kind=self._consumer,
            attributes=attributes,
            start_time=at[0],
        )
        span.end(at[1])

    def attempt(
        self,
        traceparent: str,
        said: dict[str, str | int],
        *,
        failed: bool,
        at: tuple[int, int],
    ) -> None:
        """One conversation with a relay; ``said`` are its attributes without the prefix."""
        span = self._tracer.start_span(
            "mailgate attempt",
            self._parent(traceparent),
            kind=self._client,
            attributes={f"mailgate.{key}": value for key, value in said.items()},
            start_time=at[0],
        )
        if failed:
            span.set_status(self._error)
        span.end(at[1])

    def _parent(self, traceparent: str) -> Context:
        return self._propagator.extract({"traceparent": traceparent})

    def close(self) -> None:
        """Let the last spans out; a collector that is away holds nobody up."""
        thread = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        thread.start()
        thread.join(_GRACE)
