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


#: What each step may cost of inlining the mail: some three fifths more than when written.
MOST = {"intake": 0.032, "turn": 0.045, "render": 0.047, "outcome": 0.007}


def test_no_step_of_a_message_costs_more_than_its_share_of_inlining_it(tmp_path: Path) -> None:
    """Intake and journal, take and settle, render, judgement; together a thirteenth when
    this was written, and a ninth at most."""
    _walk(tmp_path / "warm.db", 60, 60, 30)
    _plain(3)
    # The better of several: what disturbs one seldom disturbs the other.
    walks = [_walk(tmp_path / f"journal{n}.db", 600, 300, 50) for n in range(3)]
    plain = _plain(60) / 60
    ours = {step: min(walk[step] for walk in walks) / 600 / plain for step in MOST}
    dear = {step: round(share, 4) for step, share in ours.items() if share > MOST[step]}
    assert not dear, f"dearer than {MOST}, of {plain * 1e6:.0f} µs"
    assert sum(ours.values()) < 1 / 9


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
