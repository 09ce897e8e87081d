"""A shop's own Celery application beside mailgate: each of its ways ends in one mail."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from pathlib import Path

import httpx

from tests.acceptance.stage import until
from tests.examples.conftest import Town
from tests.servers import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-celery"

CALLS = """
import shop
shop.invoice(4711, "link@shop.example")
shop.invoice(4711, "link@shop.example")  # a second run of the same thing
shop.report("2026-05-04", "chain@shop.example")
shop.week(["2026-05-04", "2026-05-05", "2026-05-06"], "chord@shop.example")
shop.app.tasks["shop.clean_up"].apply_async(**shop.app.conf.beat_schedule["clean up"]["options"])
"""


def test_link_chain_chord_and_clean_up_end_in_a_mail_and_flower_shows_all(town: Town) -> None:
    with sqlite3.connect(town.directory / "shop.db") as database:
        database.execute("CREATE TABLE orders (day, amount)")
        days = [("2026-05-04", 10), ("2026-05-04", 32), ("2026-05-06", 5)]
        database.executemany("INSERT INTO orders VALUES (?, ?)", days)
        database.execute("CREATE TABLE baskets (touched)")
        database.executemany("INSERT INTO baskets VALUES (?)", [("2020-01-01",), ("2999-01-01",)])
    names = {"SHOP_BROKER": town.url, "MAILGATE_URL": town.url, "SHOP_DATABASE": "shop.db"}
    port = free_port()
    flower = town.mailgate("flower", "--port", str(port), "--basic-auth", "ann:secret-word")
    until(lambda: b"OK" in fetch(port, "/healthcheck"), 30, flower.tail)
    worker = ["-m", "celery", "-A", "shop", "worker", "--queues", "shop", "--without-gossip"]
    shop = town.program(
        [sys.executable, *worker, "--concurrency", "2", "--pool", "threads", "--loglevel", "INFO"],
        EXAMPLE,
        names,
    )
    until(lambda: "ready" in shop.tail(), 30, shop.tail)
    caller = town.program([sys.executable, "-c", CALLS], EXAMPLE, names)
    assert caller.wait(30) == 0, caller.tail()

    def subjects() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for mail in town.inbox():
            for to in mail["rcpt_to"]:
                found.setdefault(to, []).append(mail["subject"])
        return found

    wanted = {"link@shop.example", "chain@shop.example", "chord@shop.example", "boss@shop.example"}
    until(lambda: wanted <= subjects().keys(), 40, lambda: f"{subjects()}\n{shop.tail()}")
    found = subjects()
    assert found["link@shop.example"] == ["Invoice 4711"]
    assert found["chain@shop.example"] == ["Sales of 2026-05-04"]
    assert found["chord@shop.example"] == ["The week"]
    assert found["boss@shop.example"] == ["Clean-up"]
    with sqlite3.connect(town.directory / "shop.db") as database:
        assert database.execute("SELECT touched FROM baskets").fetchall() == [("2999-01-01",)]

    def seen() -> set[str]:
        tasks = json.loads(fetch(port, "/api/tasks")).values()
        return {task["name"] for task in tasks if task["state"] == "SUCCESS"}

    both = {"shop.make_invoice", "shop.send", "shop.add_up", "mailgate.deliver"}
    until(lambda: both <= seen(), 20, lambda: str(seen()))


def fetch(port: int, path: str) -> bytes:
    with contextlib.suppress(httpx.TransportError):
        page = httpx.get(f"http://127.0.0.1:{port}{path}", auth=("ann", "secret-word"), timeout=5)
        return page.content
    return b""
