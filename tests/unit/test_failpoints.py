"""Failpoints: every name has its one place, and none fires outside of a test."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import timeit
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailgate import failpoints

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.hit = failpoints._nothing


def armed(said: str, directory: Path) -> dict[str, str]:
    return {"MAILGATE_FAILPOINTS": said, "MAILGATE_TEST": str(directory)}


def test_every_name_has_one_place_and_every_place_a_name() -> None:
    hits = Counter(
        name
        for path in (ROOT / "mailgate").rglob("*.py")
        for name in re.findall(r'failpoints\.hit\("([^"]*)"\)', path.read_text())
    )
    assert hits == Counter(dict.fromkeys(failpoints.POINTS, 1))


def test_nothing_is_armed_unless_the_environment_says_so(tmp_path: Path) -> None:
    failpoints.arm({"MAILGATE_TEST": str(tmp_path)})
    assert failpoints.hit is failpoints._nothing


@pytest.mark.parametrize("test", [{}, {"MAILGATE_TEST": ""}, {"MAILGATE_TEST": "/nowhere/at/all"}])
def test_outside_of_a_test_they_are_refused(test: dict[str, str]) -> None:
    with pytest.raises(failpoints.FailpointsRefused, match="this is no test"):
        failpoints.arm({"MAILGATE_FAILPOINTS": "smtp.after_dot=kill", **test})


@pytest.mark.parametrize(
    "said",
    ["smtp.after_dit=kill", "smtp.after_dot", "smtp.after_dot=burn", "smtp.after_dot=kill@0",
     "smtp.after_dot=sleep", "smtp.after_dot=drop", "smtp.after_dot=drop:smtp",
     "smtp.after_dot=kill,"],
)  # fmt: skip
def test_what_it_does_not_know_it_refuses(said: str, tmp_path: Path) -> None:
    with pytest.raises(failpoints.FailpointsRefused, match=r"NAME=ACTION"):
        failpoints.arm(armed(said, tmp_path))


def test_from_the_nth_time_on_and_so_many_times_in_all_processes(tmp_path: Path) -> None:
    def fires() -> list[bool]:
        """One process's five visits."""
        failpoints.arm(armed("render.before=raise@2*3,take.claimed=raise*0", tmp_path))
        found = []
        for _ in range(5):
            try:
                failpoints.hit("render.before")
            except failpoints.Failed:
                found.append(True)
            else:
                found.append(False)
            failpoints.hit("smtp.marked")
        return found

    assert fires() == [False, True, True, True, False]
    assert fires() == [False] * 5
    for _ in range(4):
        with pytest.raises(failpoints.Failed, match=r"take\.claimed"):
            failpoints.hit("take.claimed")
    lines = [line.split() for line in (tmp_path / "fired").read_text().splitlines()]
    assert [name for _, _, name, _ in lines] == ["render.before"] * 3 + ["take.claimed"] * 4
    assert {int(pid) for _, pid, _, _ in lines} == {os.getpid()}


def test_sleep_holds_the_thread(tmp_path: Path) -> None:
    failpoints.arm(armed("render.before=sleep:0.05", tmp_path))
    begun = time.monotonic()
    failpoints.hit("render.before")
    assert time.monotonic() - begun >= 0.05


def test_drop_cuts_what_is_connected_to_that_port_and_nothing_else(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        cut, kept = (socket.create_connection(s.getsockname()) for s in (one, other))
        with cut, kept, one.accept()[0] as theirs, other.accept()[0] as afar:
            failpoints.arm(armed(f"smtp.marked=drop:{one.getsockname()[1]}", tmp_path))
            failpoints.hit("smtp.marked")
            assert (cut.recv(1), theirs.recv(1)) == (b"", b"")
            # Both ends are in this process, and one of them is connected to that port.
            assert (tmp_path / "dropped").read_text() == "smtp.marked 1\n"
            afar.sendall(b"y")
            assert kept.recv(1) == b"y"


def test_kill_is_a_real_kill_and_is_on_record(tmp_path: Path) -> None:
    script = (
        "import os\nfrom mailgate import failpoints\nfailpoints.arm(os.environ)\n"
        "failpoints.hit('smtp.after_dot')\nprint('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **armed("smtp.after_dot=kill", tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert (tmp_path / "fired").read_text().split()[2:] == ["smtp.after_dot", "kill"]


_STOPS = """
import os, sys, threading, time
from mailgate import failpoints
failpoints.arm(os.environ)
def visit():
    for n in range(200):
        failpoints.hit("smtp.before_dot")
        os.write(1, b".")
visitor = threading.Thread(target=visit)
visitor.start()
visitor.join()
"""


def test_stop_goes_no_step_further_whatever_threads_there_are(tmp_path: Path) -> None:
    """A signal to the process may be taken by another thread, a little later."""
    with subprocess.Popen(
        [sys.executable, "-c", _STOPS],
        env=os.environ | armed("smtp.before_dot=stop*0", tmp_path) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as visits:
        assert visits.stdout is not None
        os.set_blocking(visits.stdout.fileno(), False)
        try:
            for n in range(200):
                _, status = os.waitpid(visits.pid, os.WUNTRACED)
                assert os.WIFSTOPPED(status)
                went_on = visits.stdout.read() or b""
                assert went_on == (b"." if n else b""), f"at the stop number {n + 1}"
                visits.send_signal(signal.SIGCONT)
            assert visits.wait(10) == 0
        finally:
            visits.kill()


def test_a_program_that_is_told_of_one_and_of_no_test_does_not_start() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAILGATE_")}
    done = subprocess.run(
        [sys.executable, "-m", "mailgate.cli.main", "config", "show"],
        env={**environment, "MAILGATE_FAILPOINTS": "smtp.after_dot=kill", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "this is no test" in done.stderr
    assert "Traceback" not in done.stderr


def test_off_a_point_costs_less_than_a_quarter_of_a_microsecond() -> None:
    once = timeit.Timer("failpoints.hit('smtp.after_dot')", "from mailgate import failpoints")
    assert min(once.repeat(5, 20_000)) / 20_000 < 250e-9
