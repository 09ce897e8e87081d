"""Where a message's CPU time goes, step by step, by py-spy's samples of a run.

Owns the assignment of stack frames to steps. Needs py-spy on the PATH or named
(``--py-spy``); it is not among the locked packages. Sampling itself slows a run by
some percent, so rates are never taken from a profiled one.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench import machine
from bench.sides import Side

RATE = 250
_STACK = re.compile(r"(.+?) (\d+)$\n", re.MULTILINE | re.DOTALL)

#: Threads that wait. py-spy counts them when they are runnable, as they are while the
#: machine has something else to do first.
_WAITS = (
    "select (selectors.py",
    "_worker (concurrent/futures/thread.py",
    "wait (threading.py",
)

#: The first that fits a frame, from the innermost frame outwards, names the step: so what
#: a library or the kernel does for one of our rooms is that room's.
_OURS = (
    ("log lines", ("mailgate/log.py", "disposition (", "_report (")),
    ("MIME", ("mailgate/render/mime.py", "render/headers.py", "render/encode.py")),
    ("render", ("mailgate/render/", "<template>")),
    ("SMTP", ("mailgate/smtp/",)),
    ("read JSON", ("mailgate/contract/",)),
    ("decide", ("mailgate/intake/accept.py", "letter_text (")),
    ("settle", ("mailgate/journal/settling.py", "delivery/retry.py")),
    ("arrivals", ("mailgate/journal/arrivals.py",)),
    ("look", ("due (mailgate/journal", "heads (mailgate/journal", "_look_once")),
    ("throttle", ("mailgate/journal/throttle.py",)),
    ("claim", ("mailgate/journal/queue.py", "journal/contents.py", "journal/letters.py")),
    ("begin, commit", ("mailgate/journal/database.py",)),
    ("take", ("mailgate/dispatch/",)),
    ("limiter", ("mailgate/limits/",)),
    ("conversation", ("mailgate/delivery/",)),
    ("doors", ("mailgate/intake/",)),
    ("rings", ("mailgate/worker/doorbell.py",)),
)
#: For stacks with none of ours.
_FOREIGN = (
    ("SMTP", ("aiosmtplib/",)),
    ("doors", ("redis/", "amqp/")),
    ("Celery", ("celery/", "kombu/", "billiard/")),
    ("loop", ("asyncio/", "selectors.py", "concurrent/futures", "threading.py")),
)


def step_of(stack: str) -> str:
    """The step that a stack (outermost frame first, by semicolons) belongs to; '' for none."""
    frames = stack.split(";")[::-1]
    if any(mark in frames[0] for mark in _WAITS):
        return ""
    for table in (_OURS, _FOREIGN):
        for frame in frames:
            for step, marks in table:
                if any(mark in frame for mark in marks):
                    return step
    return "other"


class Budget:
    """The samples of one run, by process and step."""

    def __init__(self, directory: Path, program: str | None) -> None:
        self._program = program or shutil.which("py-spy") or ""
        if not self._program:
            raise SystemExit("py-spy is not on the PATH: pip install py-spy, or --py-spy PATH")
        self._directory = directory
        self.steps: dict[str, Counter[str]] = {}

    @contextlib.contextmanager
    def watch(self, side: Side) -> Iterator[None]:
        """Sample the worker's children, and whatever intake there will be."""
        children = machine.tree(side.parts["worker"]._process.pid)[2:]
        spies = [self._spy(f"worker-{pid}", pid) for pid in children]
        started = False

        def go() -> float:
            nonlocal started
            moment = original()
            if not started and "intake" in side.parts:
                started = True
                pid = machine.tree(side.parts["intake"]._process.pid)[1]
                spies.append(self._spy("intake", pid))
            return moment

        original, side.go = side.go, go  # type: ignore[method-assign]
        try:
            yield
        finally:
            side.go = original  # type: ignore[method-assign]
            for spy, _ in spies:
                spy.send_signal(signal.SIGINT)
            for spy, path in spies:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    spy.wait(20)
                self._read(path)

    def _spy(self, name: str, pid: int) -> tuple[subprocess.Popen[bytes], Path]:
        path = self._directory / f"{name}.stacks"
        command = [self._program, "record", "-p", str(pid), "-r", str(RATE), "-f", "raw"]
        command += ["-o", str(path), "-d", "300", "--nonblocking"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), path

    def _read(self, path: Path) -> None:
        name = path.name.partition("-")[0].removesuffix(".stacks")
        steps = self.steps.setdefault(name, Counter())
        if not path.exists():
            return
        # A template compiled from text has that text for a file name, with its line ends.
        for stack, count in _STACK.findall(path.read_text()):
            if step := step_of(stack):
                steps[step] += int(count)

    def table(self, cpu: dict[str, float]) -> str:
        """µs a message by process and step; ``cpu`` is the run's cost by process."""
        lines = []
        for name, steps in self.steps.items():
            total = sum(steps.values())
            if not total:
                continue
            lines.append(f"  {name}: {cpu.get(name, 0):.0f} µs a message, {total} samples")
            lines += [
                f"    {step:16}{cpu.get(name, 0) * n / total:7.0f}"
                for step, n in steps.most_common()
            ]
        return "\n".join(lines)
