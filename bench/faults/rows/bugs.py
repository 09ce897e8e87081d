"""A mailgate with a bug in it: the harness must notice, each in the fault that brings it out.

The same harm is done to mailgate as it is before, so that what is noticed is the bug.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.faults.fault import Run, fault
from bench.faults.rows.pauses import wake_late
from bench.faults.rows.points import die_at
from tests.acceptance.stage import Stage, until


def _point(name: str) -> Callable[..., None]:
    def dies(run: Run, **more: Any) -> None:
        # More than once: a relay that has not read the dot when the reset comes has no mail.
        die_at(run, [name], 3, "valkey", "sqlite", **more)

    return dies


def _lost(said: str, scene: Stage) -> None:
    """Mails are missing, and nothing brings them any more."""
    assert said.startswith("not within"), said

    def empty() -> bool:
        with scene.redis() as client:
            [inbox] = client.xinfo_groups("mailgate:inbox")
        return inbox["lag"] == inbox["pending"] == 0

    until(empty, 60, scene.logs)
    # Three batches of ten at most, of a lap's 59 for 63 recipients, two of which are for four;
    # the last may be in hand still.
    until(lambda: scene.journal.accepted() >= 63 - 28 - 8, 30, scene.logs)
    time.sleep(1)
    assert scene.journal.accepted() < 63, "nothing is missing"


def _doubled(said: str, scene: Stage) -> None:
    """A copy more than the attempts on record allow."""
    assert "extra=(" in said.replace("extra=()", ""), said


#: By bug: the fault, and what tells that it was this.
_CAUGHT: dict[str, tuple[Callable[..., None], Callable[[str, Stage], None]]] = {
    "acknowledge-before-the-commit": (_point("intake.before_commit"), _lost),
    "no-mark-before-the-dot": (_point("smtp.after_dot"), _doubled),
    "no-fence": (partial(wake_late, amid=True), _doubled),
    "no-compare-and-set": (partial(wake_late, amid=False), _doubled),
}


def _enter(bug: str, fails: Callable[..., None], shown: Callable[[str, Stage], None]) -> None:
    @fault(f"planted-{bug}", f"a bug is planted: {bug.replace('-', ' ')}", "the books tell of it")
    def planted(run: Run) -> None:
        fails(run)
        run.ground.clear()
        try:
            more = {"patience": 8} if shown is _lost else {}
            fails(run, program=[sys.executable, "-m", "bench.faults.planted", bug], **more)
        except AssertionError as error:
            said = str(error)
        else:
            raise AssertionError("nothing was noticed")
        # The copies it made are not mailgate's.
        run.figures.clear()
        shown(said, run.scene)
        run.note(noticed=said.splitlines()[0][:160])


for _bug, (_fails, _shown) in _CAUGHT.items():
    _enter(_bug, _fails, _shown)
