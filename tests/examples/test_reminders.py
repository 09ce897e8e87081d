"""Reminders: kept until their time, and their state is on the page as it changes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.acceptance.stage import until
from tests.examples.conftest import Town
from tests.servers import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "reminders"


@pytest.fixture(scope="module")
def page(town: Town) -> httpx.Client:
    port = free_port()
    names = {"MAILGATE_URL": town.url, "PORT": str(port)}
    program = town.program([sys.executable, str(EXAMPLE / "app.py")], EXAMPLE, names)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)

    def answers() -> bool:
        try:
            return client.get("/").status_code == 200
        except httpx.TransportError:
            return False

    until(answers, 20, program.tail)
    return client


def number_of(page: httpx.Client, text: str, seconds: str) -> str:
    before = set(page.get("/states").json())
    form = {"text": text, "email": "ann@example.com", "in": seconds}
    assert page.post("/", data=form).status_code == 302
    [number] = set(page.get("/states").json()) - before
    return str(number)


def test_a_reminder_goes_at_its_time_and_the_page_tells(town: Town, page: httpx.Client) -> None:
    # When the broker has it the state is "accepted", and "sent" not before its time.
    due = time.time() + 4
    number = number_of(page, "Water the plants", "4")
    seen = ["saved"]

    def sent() -> bool:
        state = page.get("/states").json()[number]
        if state != seen[-1]:
            seen.append(state)
        return bool(state == "sent")

    until(sent, 20, lambda: str(seen))
    assert 0 <= time.time() - due < 4
    assert seen[-2:] == ["accepted", "sent"]
    answer = page.get(f"/reminders/{number}").json()
    assert [one["state"] for one in answer["recipients"]] == ["sent"]
    [mail] = [m for m in town.inbox() if m["subject"] == "Your reminder"]
    assert mail["rcpt_to"] == ["ann@example.com"]


def test_what_is_cancelled_on_the_page_never_goes(town: Town, page: httpx.Client) -> None:
    before = len([m for m in town.inbox() if m["subject"] == "Your reminder"])
    number = number_of(page, "Buy milk", "600")
    until(lambda: page.get("/states").json()[number] == "accepted", 20)
    assert page.post(f"/reminders/{number}/cancel").status_code == 302
    until(lambda: page.get("/states").json()[number] == "cancelled", 20)
    assert len([m for m in town.inbox() if m["subject"] == "Your reminder"]) == before
