"""``./dev bench start``: how long it takes until mailgate answers.

Owns ``mailgate --help`` against ``python -c 'import typer'``, in turns, and ``mailgate up``
from nothing to the first message that it has accepted, and that its inbox has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import redis

from bench import environment
from bench.keeping import keep
from bench.workload import bodies

MAILGATE = [sys.executable, "-m", "mailgate.cli.main"]
#: Longest time for a start (seconds).
PATIENCE = 60.0


def main(options: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench start", description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args(options)
    inherited = environment.environ()
    environ = {k: v for k, v in inherited.items() if not k.startswith("MAILGATE_")}
    helps, typers = [], []
    for _ in range(given.turns):
        typers.append(_spent([sys.executable, "-c", "import typer"], environ))
        helps.append(_spent([*MAILGATE, "--help"], environ))
    ratio = statistics.median(a / b for a, b in zip(helps, typers, strict=True))
    # The first run of a checkout compiles what it imports.
    ups = [_up(environ) for _ in range(3)]
    accepted = statistics.median(up[0] for up in ups)
    sent = statistics.median(up[1] for up in ups)
    print(f"mailgate --help: {ratio:.2f} times the processor time of importing typer")
    print(f"mailgate up: first message accepted after {accepted:.2f} s, sent after {sent:.2f} s")
    found = {"help_times_typer": round(ratio, 3), "up_accepted_s": round(accepted, 3)}
    found["up_sent_s"] = round(sent, 3)
    keep("start", {"start": found})
    return 0


def _spent(command: Sequence[str], environ: Mapping[str, str]) -> float:
    """Processor time of a command: another's work hardly changes it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _up(environ: Mapping[str, str]) -> tuple[float, float]:
    """Seconds until the first message was accepted, and sent to the inbox."""
    directory = Path(tempfile.mkdtemp(prefix="mgu-"))
    log = directory / "log"
    state = directory / "state"
    ports = {"MAILGATE_INBOX__HTTP_PORT": "0", "MAILGATE_INBOX__SMTP_PORT": "0"}
    said = {**environ, **ports, "MAILGATE_STATE_DIR": str(state)}
    begun = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*MAILGATE, "up"], env=said, cwd=directory, stdout=out, stderr=out
        )
    try:
        found = _until(
            lambda: re.search(r"publish to +redis\+socket://(\S+)", log.read_text()), log
        )
        assert isinstance(found, re.Match)
        client = redis.Redis(unix_socket_path=found[1])
        client.xadd("mailgate:inbox", {"message": _first()})
        _until(lambda: _count(state, "1 = 1"), log)
        accepted = time.monotonic() - begun
        _until(lambda: _count(state, "state = 'sent'"), log)
        return accepted, time.monotonic() - begun
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        shutil.rmtree(directory, ignore_errors=True)


def _first() -> bytes:
    said = json.loads(bodies(1, "first")[0])
    said |= {"template": None, "data": None}
    said = {k: v for k, v in said.items() if v is not None}
    return json.dumps(said | {"subject": "First", "text": "Hello"}).encode()


def _count(state: Path, where: str) -> int:
    with contextlib.suppress(sqlite3.Error):
        [path] = list(state.glob("*.db")) or [state / "journal.db"]
        if path.exists():
            with contextlib.closing(sqlite3.connect(path)) as db:
                query = f"SELECT count(*) FROM recipients WHERE {where}"
                return int(db.execute(query).fetchone()[0])
    return 0


def _until(look: object, log: Path) -> object:
    assert callable(look)
    until = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            raise TimeoutError(f"mailgate up is not there\n{log.read_text()[-2000:]}")
        time.sleep(0.01)
