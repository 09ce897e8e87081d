"""The small server: metrics, live, ready, and what a fork must not keep."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import httpx
import pytest

from mailgate.http.health import Remembered
from mailgate.http.server import Server
from mailgate.metrics import families
from mailgate.metrics.families import FAMILIES
from mailgate.metrics.tally import Tally, Totals, together

Made = Callable[..., Server]


@pytest.fixture
def made() -> Iterator[Made]:
    servers: list[Server] = []

    def make(totals: Callable[[], Totals] = Totals, live=None, ready=None) -> Server:  # type: ignore[no-untyped-def]
        server = Server(("127.0.0.1", 0), "worker", totals, live or {}, ready or {})
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


def _get(server: Server, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{server.port}{path}", headers=headers, timeout=10)


def test_metrics_are_what_prometheus_reads(made: Made) -> None:
    tally = Tally()
    tally.add(families.SETTLED, ("bounced", 'odd"\\class\n', "main", "google"), 2)
    tally.observe(families.TURN, (), 0.02)
    page = _get(made(lambda: together([tally.snapshot()])), "/metrics")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain; version=")
    lines = page.text.splitlines()
    assert (
        'mailgate_settled_total{destination="google",error_class="odd\\"\\\\class\\n",'
        'relay="main",state="bounced"} 2.0' in lines
    )
    assert 'mailgate_journal_turn_seconds_bucket{le="0.01"} 0.0' in lines
    assert 'mailgate_journal_turn_seconds_bucket{le="0.025"} 1.0' in lines
    assert 'mailgate_journal_turn_seconds_bucket{le="+Inf"} 1.0' in lines
    assert "mailgate_journal_turn_seconds_count 1.0" in lines
    assert "process_cpu_seconds_total" in page.text
    for family in FAMILIES.values():
        name = family.name.removesuffix("_total")
        assert f"# TYPE {name}" in page.text, family.name


def test_openmetrics_is_spoken_to_who_asks_for_it(made: Made) -> None:
    page = _get(made(), "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    assert page.text.endswith("# EOF\n")


def test_health_says_which_check_fails_and_never_the_error_text(made: Made) -> None:
    def broken() -> str:
        raise ValueError("ann@example.com is no password")

    server = made(live={"loop": lambda: ""}, ready={"journal": broken, "broker": lambda: "away"})
    live, ready = _get(server, "/health/live"), _get(server, "/health/ready")
    assert (live.status_code, live.json()) == (200, {"status": "ok", "checks": {"loop": "ok"}})
    assert ready.status_code == 503
    assert ready.json() == {
        "status": "failing",
        "checks": {"journal": "ValueError", "broker": "away"},
    }


def test_every_answer_ends_its_connection_and_nothing_else_is_served(made: Made) -> None:
    """A kept connection would live on in a child that is forked meanwhile."""
    server = made()
    for path, code in (("/metrics", 200), ("/health/live", 200), ("/", 404), ("/docs", 404)):
        reply = _get(server, path)
        assert reply.status_code == code
        assert reply.headers["connection"] == "close"
    refused = httpx.post(f"http://127.0.0.1:{server.port}/metrics")
    assert refused.status_code == 405


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_port(made: Made) -> None:
    server = made()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 1)
        os._exit(0)
    try:
        port = server.port
        server.stop()
        Server(("127.0.0.1", port), "worker", Totals, {}, {}).stop()
    finally:
        os.write(writing, b".")
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_a_taken_port_is_said_before_anything_starts(made: Made) -> None:
    with pytest.raises(OSError, match="in use"):
        Server(("127.0.0.1", made().port), "worker", Totals, {}, {})


def test_a_remembered_check_is_asked_once_in_a_while() -> None:
    asked: list[float] = []
    now = [0.0]

    def check() -> str:
        asked.append(now[0])
        return "away"

    remembered = Remembered(check, 5.0, lambda: now[0])
    for now[0] in (0.0, 1.0, 4.9, 5.0, 6.0):
        assert remembered() == "away"
    assert asked == [0.0, 5.0]
