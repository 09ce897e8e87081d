"""What a message costs, where a change could make it dear unseen: by ratio and by count.

Processor time against the plain way's in the same process, never time by the clock: a
busy machine slows both. Statements are counted, since their number is exact.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import jinja2
import sqlalchemy as sa
from premailer import Premailer  # type: ignore[import-untyped]

from bench import steps
from bench.workload import TEMPLATES, message


def _walk(path: Path, messages: int, batch: int, turn: int) -> dict[str, float]:
    return asyncio.run(steps.walk(f"sqlite:///{path}", messages, batch, turn))


def _plain(messages: int) -> float:
    """Seconds of processor time for what the plain pattern does in its first half."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    environment.filters["url"] = lambda value: value
    template = environment.get_template("orders/en.html")
    begun = time.process_time()
    for number in range(messages):
        html = template.render(message(number, "p")["data"])
        Premailer(
            html,
            allow_network=False,
            disable_validation=True,
            cssutils_logging_level=logging.CRITICAL,
        ).transform()
    return time.process_time() - begun


def test_the_whole_way_of_a_message_costs_a_sixth_of_inlining_it_at_most(tmp_path: Path) -> None:
    """Intake, journal, render and settle together; a ninth when this was written."""
    _walk(tmp_path / "warm.db", 60, 60, 30)
    _plain(3)
    ours = sum(_walk(tmp_path / "journal.db", 600, 300, 50).values()) / 600
    plain = _plain(60) / 60
    assert plain / ours > 6, f"{ours * 1e6:.0f} µs against {plain * 1e6:.0f}"


def test_a_batch_of_eighty_takes_no_more_statements_than_one_of_twenty(tmp_path: Path) -> None:
    counted = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        counted.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        numbers = []
        for name, size in (("small", 20), ("large", 80)):
            counted.clear()
            _walk(tmp_path / f"{name}.db", size, size, size)
            numbers.append(len(counted))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)
    assert numbers[0] == numbers[1]
