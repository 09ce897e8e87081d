"""Spans: in the producer's trace, one for each attempt, and no address in them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mailgate.gateway import Gateway
from mailgate.intake.accept import Accept
from mailgate.intake.door import Delivery
from mailgate.model.state import Lane
from mailgate.tracing.spans import Tracing
from tests.integration.delivery.house import House, soon, until
from tests.integration.smtp.scripted import ScriptedRelay

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Collector:
    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracing = Tracing(provider)

    def spans(self) -> list[ReadableSpan]:
        return list(self._kept.get_finished_spans())


def _in_the_producers_trace(span: ReadableSpan) -> bool:
    assert span.context is not None
    assert span.parent is not None
    return f"{span.context.trace_id:032x}" == TRACE and f"{span.parent.span_id:016x}" == SPAN


def _said(span: ReadableSpan) -> dict[str, Any]:
    return {k.removeprefix("mailgate."): v for k, v in (span.attributes or {}).items()}


async def test_each_attempt_is_a_span_in_the_producers_trace(house: House) -> None:
    collector = Collector()
    async with ScriptedRelay(RCPT=["451 4.3.0 ann@example.org, later", "250 Ok"]) as relay:
        config = house.config({"main": relay})
        gateway = Gateway.from_config(config, ring=house.rings.append, tracing=collector.tracing)
        await gateway.start()
        try:
            await house.add("ann@example.org", traceparent=PARENT)
            await gateway.deliver(Lane.NORMAL, soon(0.5))
            await until(lambda: house.journal.heads(), 3)
            await gateway.deliver(Lane.NORMAL, soon(0.5))
        finally:
            await gateway.stop(0)
    first, second = collector.spans()
    assert _in_the_producers_trace(first)
    assert _in_the_producers_trace(second)
    said = _said(first)
    assert said["relay"] == "main"
    assert (said["attempt"], said["state"], said["phase"], said["code"]) == (
        *(1, "deferred", "rcpt", 451),
    )
    assert not first.status.is_ok
    assert first.start_time is not None
    assert second.start_time is not None
    assert first.start_time < second.start_time
    assert (_said(second)["attempt"], _said(second)["state"], _said(second)["code"]) == (
        *(2, "sent", 250),
    )
    for span in (first, second):
        assert "ann" not in json.dumps(json.loads(span.to_json()))


async def test_only_what_came_with_a_trace_is_traced(house: House) -> None:
    collector = Collector()
    config = house.config({}, relays={"main": {"host": "relay.example"}})
    accept = Accept(config, house.journal.arrivals, lambda *_: (), collector.tracing)
    said = {"from": {"email": "shop@example.com"}, "to": ["ann@example.org"], "subject": "Hi"}
    said |= {"text": "x", "producer": "shop"}
    bodies = [said, {**said, "traceparent": PARENT}]
    deliveries = [
        Delivery(json.dumps(body).encode(), "test", str(n), False, None, n)
        for n, body in enumerate(bodies)
    ]
    stored = await accept.batch(deliveries)
    assert stored.accepted == 2
    [span] = collector.spans()
    assert span.name == "mailgate accept"
    assert _in_the_producers_trace(span)
    assert _said(span)["producer"] == "shop"
    assert "ann" not in span.to_json()


def test_mailgate_works_where_opentelemetry_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None;"
        "import mailgate.gateway, mailgate.intake.accept, mailgate.worker.celery_app"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_tracing_without_the_extra_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from mailgate.tracing.spans import TracingMissing

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TracingMissing, match=r"pip install 'mailgate\[otel\]'"):
        Tracing.to_collector("worker")
