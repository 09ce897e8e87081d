"""Marks that outlive a killed process, and the seal that stops a living one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailgate.delivery import spool as spools
from mailgate.delivery.spool import Mark, Spool

ROOT = Path(__file__).parents[3]

#: A process with one conversation in each phase; it answers "done" and waits.
OWNER = """
import sys
from pathlib import Path
from mailgate.delivery.spool import Mark, Spool
spool = Spool(Path(sys.argv[1]), 42, 16)
for n, mark in enumerate(Mark):
    slot = spool.take(100 + n, 7)
    spool.mark(slot, mark)
gone = spool.take(999, 1)
spool.mark(gone, Mark.DOT)
spool.free(gone)
print("done", flush=True)
for line in sys.stdin:
    # Each line asks for one more dot.
    slot = spool.take(500, 1)
    print(spool.mark(slot, Mark.DOT), flush=True)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def start(name: str = "a.spool") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(tmp_path / name)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


LEFT = {(101, 7): Mark.DOT, (102, 7): Mark.ACCEPTED, (103, 7): Mark.REFUSED}


def test_the_marks_of_a_killed_process_are_read(
    owner: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    path = tmp_path / "a.spool"
    process = owner()
    assert not spools.is_dead(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert spools.is_dead(path)
    assert spools.bury(path, 42) == LEFT
    # Whoever comes second reads the same.
    assert spools.bury(path, 42) == LEFT
    spools.discard(path)
    assert spools.bury(path, 42) is None
    assert not spools.is_dead(path)
    spools.discard(path)


def test_a_stopped_process_is_not_dead_and_once_sealed_sends_no_dot(
    owner: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    path = tmp_path / "a.spool"
    process = owner()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "True\n"
    process.send_signal(signal.SIGSTOP)
    assert not spools.is_dead(path)
    assert spools.bury(path, 42) == {**LEFT, (500, 1): Mark.DOT}
    process.send_signal(signal.SIGCONT)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "False\n"


def test_two_processes_keep_their_own(
    owner: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    one, two = owner("one"), owner("two")
    one.kill()
    one.wait()
    assert spools.is_dead(tmp_path / "one")
    assert not spools.is_dead(tmp_path / "two")
    spools.bury(tmp_path / "one", 42)
    assert two.stdin is not None
    assert two.stdout is not None
    two.stdin.write("\n")
    two.stdin.flush()
    assert two.stdout.readline() == "True\n"


def test_a_child_of_a_dead_owner_does_not_keep_it_alive(tmp_path: Path) -> None:
    """A program started by a worker inherits no lock."""
    code = OWNER.replace(
        'print("done"', 'import subprocess; p = subprocess.Popen(["sleep", "20"]); print(p.pid'
    )
    path = tmp_path / "a"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        assert spools.is_dead(path)
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "own.spool", 9, 3)
    yield made
    made.close()


def test_an_open_conversation_before_its_dot_leaves_no_mark(spool: Spool) -> None:
    slot = spool.take(1, 1)
    spool.mark(slot, Mark.NONE)
    assert spools.bury(spool.path, 9) == {}


def test_a_seal_is_seen_by_its_owner(spool: Spool) -> None:
    slot = spool.take(1, 1)
    assert spool.mark(slot, Mark.DOT)
    assert not spool.sealed
    spools.bury(spool.path, 9)
    assert spool.sealed
    assert not spool.mark(slot, Mark.DOT)


def test_slots_are_bounded_and_used_again(spool: Spool) -> None:
    slots = [spool.take(n, 1) for n in range(3)]
    assert len(set(slots)) == 3
    assert spool.room == 0
    with pytest.raises(IndexError):
        spool.take(9, 1)
    spool.mark(slots[1], Mark.ACCEPTED)
    spool.free(slots[1])
    assert spool.room == 1
    assert spools.bury(spool.path, 9) == {}
    spool.mark(spool.take(2**63 - 1, 2**31), Mark.DOT)
    assert spools.bury(spool.path, 9) == {(2**63 - 1, 2**31): Mark.DOT}


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"\x00" * 200, b"mgspool2" + b"\x00" * 200])
def test_what_is_no_spool_is_no_evidence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    assert spools.bury(path, 0) is None
    assert path.read_bytes() == content


def test_the_spool_of_another_lease_is_no_evidence_and_stays_unsealed(spool: Spool) -> None:
    assert spools.bury(spool.path, 10) is None
    assert not spool.sealed


def test_a_spool_is_private_and_never_shared(spool: Spool) -> None:
    assert spool.path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Spool(spool.path, 9, 3)


def test_closing_leaves_no_file(tmp_path: Path) -> None:
    made = Spool(tmp_path / "x", 9, 3)
    made.close()
    assert not (tmp_path / "x").exists()
