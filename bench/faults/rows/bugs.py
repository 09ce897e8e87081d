"""A mailgate with a bug in it: the harness must notice, each in the fault that brings it out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.faults.fault import Run, fault
from bench.faults.rows.pauses import wake_late
from bench.faults.rows.points import die_at


def _point(name: str) -> Callable[..., None]:
    def dies(run: Run, **more: Any) -> None:
        # More than once: a relay that has not read the dot when the reset comes has no mail.
        die_at(run, [name], 3, "valkey", "sqlite", patience=8, **more)

    return dies


#: By bug: the fault, and the word by which the oracle tells that it was this.
_CAUGHT: dict[str, tuple[Callable[..., None], str]] = {
    "acknowledge-before-the-commit": (_point("intake.before_commit"), "not within"),
    "no-mark-before-the-dot": (_point("smtp.after_dot"), "extra=("),
    "no-fence": (partial(wake_late, amid=True), "extra=("),
    "no-compare-and-set": (partial(wake_late, amid=False), "extra=("),
}


def _enter(bug: str, fails: Callable[..., None], word: str) -> None:
    @fault(f"planted-{bug}", f"a bug is planted: {bug.replace('-', ' ')}", "the books tell of it")
    def planted(run: Run) -> None:
        try:
            fails(run, program=[sys.executable, "-m", "bench.faults.planted", bug])
        except AssertionError as error:
            said = str(error)
        else:
            raise AssertionError("nothing was noticed")
        # The copies it made are not mailgate's.
        run.figures.clear()
        assert word in said.replace("extra=()", ""), said
        run.note(noticed=said.splitlines()[0][:160])


for _bug, (_fails, _word) in _CAUGHT.items():
    _enter(_bug, _fails, _word)
