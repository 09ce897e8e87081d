"""Numbers of several processes on one board: the living, the dead, the silent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mailgate.metrics import families
from mailgate.metrics.board import STALE, Board
from mailgate.metrics.tally import Tally

_CHILD = """
import sys
from pathlib import Path
from mailgate.metrics import families
from mailgate.metrics.board import Board
from mailgate.metrics.tally import Tally
tally = Tally()
tally.add(families.DELIVERIES, ("accepted",), 7)
tally.observe(families.TURN, (), 0.5)
tally.set(families.CONVERSATIONS, (), 3)
Board(Path(sys.argv[1])).publish(tally.snapshot())
"""


def _counted(number: int) -> Tally:
    tally = Tally()
    tally.add(families.DELIVERIES, ("accepted",), number)
    tally.set(families.CONVERSATIONS, (), number)
    return tally


def test_what_a_dead_child_counted_stays_and_its_file_and_gauges_go(tmp_path: Path) -> None:
    board = Board.make(tmp_path, "worker")
    [directory] = (tmp_path / "metrics").iterdir()
    board.publish(_counted(2).snapshot())
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _CHILD, str(directory)], check=True)
    for _ in range(3):  # however often it is looked at
        totals = board.totals()
        assert totals.number(families.DELIVERIES, ("accepted",)) == 2 + 7 + 7
        assert sum(totals.spreads[families.TURN.name, ()][:-1]) == 2
        assert totals.number(families.CONVERSATIONS) == 2
        assert [path.stem for path in directory.iterdir()] == [str(os.getpid())]


def test_the_gauges_of_a_silent_process_are_not_shown(tmp_path: Path) -> None:
    now = [1000.0]
    board = Board(tmp_path, lambda: now[0])
    board.publish(_counted(2).snapshot())
    assert board.totals().number(families.CONVERSATIONS) == 2
    now[0] += STALE + 1
    assert board.totals().number(families.CONVERSATIONS) == 0
    assert board.totals().number(families.DELIVERIES, ("accepted",)) == 2


def test_a_torn_or_foreign_file_is_passed_over(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.publish(_counted(2).snapshot())
    (tmp_path / "1.json").write_text('{"numbers": [')
    assert board.totals().number(families.CONVERSATIONS) == 2


def test_boards_of_parents_that_are_gone_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / "metrics" / f"worker-{gone.pid}"
    left.mkdir(parents=True)
    (left / "1.json").write_text("{}")
    living = tmp_path / "metrics" / f"worker-{os.getppid()}"
    living.mkdir()
    board = Board.make(tmp_path, "worker")
    assert not left.exists()
    assert living.exists()
    board.close()
    assert [path.name for path in (tmp_path / "metrics").iterdir()] == [living.name]
