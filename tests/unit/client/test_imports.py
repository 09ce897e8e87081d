"""What it costs a producer to import the client."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from mailgate.client import testing

ROOT = Path(__file__).parents[3]

#: Nothing of the gateway's, and nothing that a program pays for before its first message.
HEAVY = (
    *("celery", "kombu", "amqp", "redis", "pydantic", "email_validator", "sqlalchemy"),
    *("jinja2", "lxml", "premailer", "babel", "typer", "rich", "starlette", "structlog"),
    *("asyncio", "logging", "email", "uuid", "ssl", "socket"),
)


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = f"import sys, mailgate.client\nprint([n for n in {HEAVY} if n in sys.modules])"
    assert python(code).strip() == "[]"


def test_importing_the_client_costs_less_than_what_it_imports_of_python() -> None:
    """On a quiet machine of today some 10 ms beside 15 ms; a ratio holds on any."""
    code = (
        "import time; a = time.process_time()\n"
        "import contextlib, dataclasses, json, threading, typing, weakref\n"
        "b = time.process_time()\n"
        "import mailgate.client\n"
        "print((time.process_time() - b) / (b - a))"
    )
    # The best of several: what else the machine does is not the client's.
    assert any(float(python(code)) < 1 for _ in range(10))


def test_publishing_loads_the_contract_and_nothing_of_the_gateway() -> None:
    code = """
import sys
import tomllib
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY - {"redis", "amqp", "pydantic", "email_validator"}:
            raise ImportError(name)
HEAVY = {"celery", "kombu", "sqlalchemy", "jinja2", "lxml", "structlog", "typer", "rich", "babel"}
sys.meta_path.insert(0, Absent())
from mailgate.client import Client, Message, NotPublished
for url in ("redis://127.0.0.1:1", "amqp://127.0.0.1:1"):
    try:
        Client(url, deadline=0).publish(Message(to="ann@example.com", template="welcome"))
    except NotPublished as error:
        print("tried")
"""
    assert python(code).split() == ["tried", "tried"]


def test_pytest_finds_the_plugin_where_mailgate_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"mailgate": testing.__name__}
    assert (ROOT / "mailgate" / "py.typed").exists()
