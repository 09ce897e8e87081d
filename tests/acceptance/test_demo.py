"""``./dev demo``, as a stranger runs it: every mail arrives, and it ends by itself."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A state directory of its own and any free ports: other demos are left in peace."""
    ports = {"MAILGATE_INBOX__HTTP_PORT": "0", "MAILGATE_INBOX__SMTP_PORT": "0"}
    return os.environ | ports | {"MAILGATE_STATE_DIR": str(tmp_path / "state")}


@contextmanager
def demo(
    environment: dict[str, str], output: Path, *options: str, stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as out:
        process = subprocess.Popen(
            [str(ROOT / "dev"), "demo", *options],
            env=environment,
            stdin=stdin,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def test_without_a_terminal_the_demo_delivers_every_mail_and_stops(
    environment: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    with demo(environment, output) as process:
        assert process.wait(100) == 0, output.read_text()
    said = output.read_text()
    assert "10 of 10 mails delivered" in said
    assert "Mooring inspection" in said
    assert _running(environment["MAILGATE_STATE_DIR"]) == []


def test_in_a_terminal_the_demo_stays_up_until_ctrl_c(
    environment: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    terminal, stdin = pty.openpty()
    try:
        with demo(environment, output, stdin=stdin) as process:
            deadline = time.monotonic() + 100
            while "Ctrl-C stops it." not in (said := output.read_text()).rpartition("logs")[2]:
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.2)
            page = re.search(r"http://127\.0\.0\.1:\d+/", said)
            assert page
            assert len(_get(f"{page[0]}api/mails")["items"]) == 10
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(60) == 0, output.read_text()
    finally:
        os.close(terminal)
        os.close(stdin)
    assert _running(environment["MAILGATE_STATE_DIR"]) == []


def _get(url: str) -> dict[str, list[dict[str, object]]]:
    with urllib.request.urlopen(url, timeout=10) as reply:
        body: dict[str, list[dict[str, object]]] = json.load(reply)
        return body


def _running(word: str) -> list[str]:
    """Command lines that name a path: what was left behind."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if word in line:
                lines.append(line)
    return lines
