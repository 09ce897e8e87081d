"""``./dev bench limits``: four limits at once, four worker processes, the relays' clocks.

Owns the run and the picture ``docs/pictures/limits.svg``: what each limit held in every
window of a second, against what it may hold. The load and the judgement are the
acceptance test's own (``tests/acceptance/stage/paced.py``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.stage import Relay, Stage, cpu_seconds, family, mails, paced, until
from tests.acceptance.stage.paced import Limit
from tests.acceptance.stage.stage import ROOT, short_directory
from tests.servers import Postgres, Valkey

PICTURE = ROOT / "docs" / "pictures" / "limits.svg"
#: Windows begin so often (seconds).
STEP = 0.05
WIDTH, HEIGHT, LEFT, TOP = 860, 150, 60, 70


def main(options: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench limits", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of 4,800 mails")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument(
        "--backlog", type=int, metavar="N", help="instead: what it costs that N wait for a limit"
    )
    given = parser.parse_args(options)
    if given.backlog:
        backlog(given.backlog)
        return 0
    found, used = run(given.scale)
    print(f"used of what the tightest limits allow: {used:.2%}")
    for limit in found:
        print(
            f"{limit.name:>10}: at most {limit.most} in a second; the fullest {limit.fullest};"
            f" {limit.most + 1} came in {limit.closest:.4f} s at the shortest"
        )
    given.picture.write_text(drawn(found, used), encoding="utf-8")
    print(f"written: {given.picture}")
    return 0 if all(limit.fullest <= limit.most for limit in found) else 1


def run(scale: float) -> tuple[list[Limit], float]:
    """Publish, wait until all is sent, and read both relays' books."""
    directory = short_directory()
    second = Relay(directory / "second")
    try:
        with staged(directory, paced.settings(second)) as scene:
            documents = paced.load(scale)
            scene.intake()
            scene.publish(documents)
            scene.wait_accepted(len(documents), 120)
            scene.worker(2)
            scene.worker(2)
            scene.wait_finished(len(documents), 60 + 150 * scale)
            books = scene.relay.book(), second.book()
    finally:
        second.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return paced.limits(*books), paced.used(*books)


def backlog(count: int) -> None:
    """What it costs that ``count`` mails wait for a limit that admits one an hour."""
    directory = short_directory()
    settings = {"limits.domain": f'{{"{paced.LIMITED}" = "1/h"}}'}
    try:
        with staged(directory, settings) as scene:
            scene.intake()
            names = [{"email": f"n+{n}@{paced.LIMITED}"} for n in range(count)]
            scene.publish(
                [
                    {"recipients": names[n : n + 1000], "subject": "Waits", "text": "."}
                    for n in range(0, count, 1000)
                ]
            )
            scene.wait_accepted(count, 60 + count / 1000)
            worker = scene.worker(2)
            until(lambda: len(scene.relay.book()) >= 1, 60, scene.logs)
            time.sleep(5)
            pids = family(worker.pid)
            begun, before = time.monotonic(), cpu_seconds(pids)
            time.sleep(20)
            share = (cpu_seconds(pids) - before) / (time.monotonic() - begun)
            asked = time.monotonic()
            scene.publish(mails(1, to="free"))
            until(lambda: len(scene.relay.book()) >= 2, 20, scene.logs)
            took = time.monotonic() - asked
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{count} wait: a worker of two processes takes {share:.1%} of a core;")
    print(f"a mail to elsewhere is there after {took:.2f} s")


@contextmanager
def staged(directory: Path, settings: Mapping[str, str]) -> Iterator[Stage]:
    """A stage over Valkey and PostgreSQL of its own."""
    servers = Path(tempfile.mkdtemp(prefix="mgb-"))
    servers.chmod(0o711)
    valkey, postgres = Valkey(servers / "valkey"), Postgres(servers / "postgres")
    try:
        journal = postgres.url(postgres.fresh_database())
        _upgrade(journal, directory)
        scene = Stage(directory, broker=valkey.broker_url, journal=journal, settings=settings)
        try:
            yield scene
        finally:
            scene.close()
    finally:
        valkey.stop()
        postgres.stop()
        shutil.rmtree(servers, ignore_errors=True)


def _upgrade(url: str, directory: Path) -> None:
    command = [sys.executable, "-m", "mailgate.cli.main", "db", "upgrade"]
    environment = os.environ | {"MAILGATE_JOURNAL__URL": url, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=environment, cwd=directory, check=True, timeout=60)


# --- the picture ---------------------------------------------------------------------


def drawn(limits: Sequence[Limit], used: float) -> str:
    """One panel a limit: the mails in the second that begins at each moment."""
    begin = min(limit.times[0] for limit in limits)
    seconds = (max(limit.times[-1] for limit in limits) - begin) / 1e9
    panels = "\n".join(_panel(n, limit, begin, seconds) for n, limit in enumerate(limits))
    height = TOP + len(limits) * (HEIGHT + 30) + 30
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"
 font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="{LEFT}" y="26" font-size="16">Mails in any second, by the relays' own clocks</text>
<text x="{LEFT}" y="46" fill="#555">Four worker processes, four limits at once; \
{used:.1%} of what the tightest allow was used while there was work</text>
{panels}
<text x="{WIDTH / 2}" y="{height - 8}" text-anchor="middle" fill="#555">seconds since the \
first mail</text>
</svg>
"""


def _panel(n: int, limit: Limit, begin: int, seconds: float) -> str:
    top = TOP + n * (HEIGHT + 30)
    across, up = (WIDTH - LEFT - 20) / seconds, (HEIGHT - 20) / (limit.most * 1.15)

    def x(at: float) -> float:
        return round(LEFT + at * across, 1)

    def y(count: float) -> float:
        return round(top + HEIGHT - count * up, 1)

    points = " ".join(f"{x(at)},{y(count)}" for at, count in _windows(limit.times, begin, seconds))
    ticks = "".join(
        f'<text x="{x(s)}" y="{top + HEIGHT + 14}" text-anchor="middle" fill="#555">{s}</text>'
        for s in range(0, int(seconds) + 1, 10 if seconds > 20 else 2)
    )
    return (
        f'<text x="{LEFT}" y="{top + 8}">{limit.name}: {limit.most}/s, '
        f"the fullest second held {limit.fullest}</text>"
        f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(0)}" y2="{y(0)}" stroke="#999"/>'
        f'<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="1.2"/>'
        f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(limit.most)}" y2="{y(limit.most)}"'
        ' stroke="#dc2626" stroke-dasharray="6 3"/>'
        f'<text x="{LEFT - 6}" y="{y(limit.most) + 4}" text-anchor="end" fill="#dc2626">'
        f"{limit.most}</text>"
        f'<text x="{LEFT - 6}" y="{y(0) + 4}" text-anchor="end" fill="#555">0</text>{ticks}'
    )


def _windows(times: Sequence[int], begin: int, seconds: float) -> list[tuple[float, int]]:
    found, low, high = [], 0, 0
    for step in range(int(seconds / STEP) + 1):
        since = begin + int(step * STEP * 1e9)
        while low < len(times) and times[low] < since:
            low += 1
        while high < len(times) and times[high] < since + 10**9:
            high += 1
        found.append((step * STEP, high - low))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
