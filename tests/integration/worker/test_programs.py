"""Flower and beat beside a worker: what they show, what they leave, how they end."""

from __future__ import annotations

import signal
from typing import Any

import httpx

from mailgate.model.state import Lane
from tests.integration.worker.conftest import Site, due, until
from tests.servers import free_port

#: The local part of the address in the error texts of ``app``'s gateway.
PRIVATE = "ann.private"


class Page:
    """Flower as a browser sees it."""

    def __init__(self, site: Site, **options: Any) -> None:
        self.port = free_port()
        self.site = site
        self.program = site.start("flower", port=self.port, **options)
        until(self.answers, "Flower", 20, site.logs)

    def get(self, path: str, password: str = "") -> httpx.Response:
        auth = ("ann", password) if password else None
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", auth=auth, timeout=10)

    def answers(self) -> bool:
        try:
            return self.get("/healthcheck").status_code == 200
        except httpx.TransportError:
            return False


def test_flower_shows_tasks_and_counts_and_no_address(site: Site) -> None:
    page = Page(site, basic_auth=["ann:secret-word"])
    site.worker()
    site.say("hold", "0.1")

    def shown(state: str) -> list[dict[str, Any]]:
        reply = page.get("/api/tasks", "secret-word")
        assert reply.status_code == 200, reply.text
        return [task for task in reply.json().values() if task["state"] == state]

    def is_shown() -> bool:
        # Flower may have come too late for the events of the first task.
        site.say(due(Lane.HIGH))
        return any("sent" in (task["result"] or "") for task in shown("SUCCESS"))

    until(is_shown, "a task on the page", 20, site.logs)
    [task, *_] = [task for task in shown("SUCCESS") if "sent" in task["result"]]
    assert task["name"] == "mailgate.deliver"
    assert task["args"] == "['high']"
    assert task["result"] == "{'sent': 48, 'deferred': 2}"
    assert task["worker"].startswith("mailgate@")

    site.say("break")
    site.say(due(Lane.BULK))
    until(lambda: shown("FAILURE"), "the failed task", 20, site.logs)
    [failure, *_] = shown("FAILURE")
    assert failure["exception"] == "DeliveryFailed('ValueError')"
    for path in ("/", "/tasks", "/api/tasks", "/api/workers", f"/task/{failure['uuid']}"):
        reply = page.get(path, "secret-word")
        assert reply.status_code == 200
        assert PRIVATE not in reply.text
        assert "secret-word" not in reply.text
    assert PRIVATE not in site.logs()

    assert page.get("/tasks").status_code == 401
    assert page.get("/api/tasks").status_code == 401
    shutdown = f"/api/worker/shutdown/{task['worker']}"
    refused = httpx.post(
        f"http://127.0.0.1:{page.port}{shutdown}", auth=("ann", "secret-word"), timeout=10
    )
    assert refused.status_code == 403  # read-only by default
    code, seconds = page.program.stop()
    assert code == 0, site.logs()
    assert seconds < 5


def test_beat_keeps_no_file_and_stops_at_once(site: Site) -> None:
    number = signal.SIGTERM if site.broker_url.startswith("amqp") else signal.SIGINT
    before = {path.name for path in site.directory.iterdir()}
    beat = site.start("beat")
    until(lambda: "beat: Starting" in beat.log.read_text(), "beat", 15, site.logs)
    code, seconds = beat.stop(number)
    assert code == 0, site.logs()
    assert seconds < 2
    assert {path.name for path in site.directory.iterdir()} - before == {beat.log.name}
