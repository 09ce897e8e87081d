"""What the long-running processes do not import: memory and start time of each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Nobody needs these to take mail in or to deliver it.
NEVER = {"flower", "tornado", "prompt_toolkit", "rich", "alembic", "opentelemetry.sdk"}
#: Only where the configuration asks for them.
ELSEWHERE = {"cryptography.hazmat", "sqlalchemy.dialects.postgresql", "psycopg"}
#: Only in processes that render.
RENDERING = {"lxml", "premailer", "cssutils", "aiosmtplib", "jinja2", "babel"}

INTAKE = """
from mailgate.intake.accept import Accept
from mailgate.intake.doors import open_doors
from mailgate.intake.service import serve
from mailgate.operations.mending import keep_fresh
from mailgate.render.catalogue import built_in_root
from mailgate.render.shelf import Shelf
from mailgate.worker.doorbell import bell_of
from mailgate.worker.probe import broker_answers
open_doors("{broker}", "mailgate.inbox")
bell_of("{broker}")
shelf = Shelf((built_in_root(),))
assert shelf.check_data("one_time_code", {{"code": "482913", "expires_minutes": 10}}) == []
"""
WORKER = """
from mailgate.worker import celery_app, command
from mailgate.config.shape import Config
from mailgate.gateway import preload
import celery.apps.worker
preload(Config.model_validate({{"broker": {{"url": "{broker}"}}}}))
"""
COMMON = """
from mailgate import tracing
tracing.withhold()
from mailgate.cli import processes
from mailgate.events.publisher import outlet
from mailgate.journal.database import Database
Database("sqlite:///:memory:").close()
"""


def _imported(code: str, broker: str) -> set[str]:
    told = "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", COMMON + code.format(broker=broker) + told],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.mark.parametrize("broker", ["redis://127.0.0.1/0", "amqp://127.0.0.1//"])
@pytest.mark.parametrize(
    ("code", "not_needed"),
    [(INTAKE, NEVER | ELSEWHERE | RENDERING | {"celery"}), (WORKER, NEVER | ELSEWHERE)],
)
def test_a_process_imports_only_what_it_uses(code: str, not_needed: set[str], broker: str) -> None:
    found = _imported(code, broker)
    assert "mailgate.journal.database" in found
    assert found & not_needed == set()
    if broker.startswith("amqp"):
        assert "redis" not in found
    if code is INTAKE:
        assert "kombu" not in found
