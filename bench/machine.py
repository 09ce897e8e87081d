"""What processes cost: CPU seconds and memory of whole trees, from /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """``root`` and every process below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                after = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(after[1]), []).append(int(entry.name))
    found, rest = [], [root]
    while rest:
        pid = rest.pop()
        found.append(pid)
        rest += children.get(pid, [])
    return found


def cpu(root: int) -> float:
    """CPU seconds of a tree so far, ended and awaited children included."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(after[i]) for i in (11, 12, 13, 14))
    return total / _TICK


def pss(keeper: int) -> float:
    """MiB of what runs below a ``tests/servers/keeper.py``; users divide what they share."""
    return sum(pss_of(pid) for pid in tree(keeper) if pid != keeper)


def pss_of(pid: int) -> float:
    """MiB of one process, its share of shared pages included; 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
