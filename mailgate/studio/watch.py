"""Notices when a file of the template roots is saved.

Owns the looking, several times a second, at names, times and sizes. Reads no file,
and takes nothing of the operating system's own watching, which differs everywhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

#: Between two looks, and while something is being written (seconds).
EVERY, SETTLING = 0.3, 0.06
#: A change that never settles is shown as it is after so long (seconds).
_PATIENCE = 1.5
#: More files are no template root; whoever names ``/`` by mistake is spared the walk.
_MOST = 20_000

#: What is known of each file: inode, time in ns, bytes.
Seen = Mapping[str, tuple[int, int, int]]


def look(roots: Sequence[Path]) -> Seen:
    """Every file below ``roots`` but hidden ones and editors' copies."""
    seen: dict[str, tuple[int, int, int]] = {}
    pending = [str(root) for root in roots]
    while pending and len(seen) < _MOST:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith((".", "#")) or entry.name.endswith("~"):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                        continue
                    found = entry.stat(follow_symlinks=False)
                    seen[entry.path] = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            continue  # gone between two calls: the next look says what is there
    return seen


async def watch(
    roots: Sequence[Path], seen: Seen, changed: Callable[[frozenset[str]], Awaitable[None]]
) -> None:
    """Call ``changed`` with the paths after each save, until cancelled.

    ``seen`` is the last look before the roots were read. An editor that writes in
    several steps (empty, fill, rename) is waited for.
    """
    while True:
        await asyncio.sleep(EVERY)
        now = await asyncio.to_thread(look, roots)
        if now == seen:
            continue
        waited = 0.0
        while waited < _PATIENCE:
            await asyncio.sleep(SETTLING)
            waited += SETTLING
            before, now = now, await asyncio.to_thread(look, roots)
            if now == before:
                break
        paths = frozenset(p for p in {*seen, *now} if seen.get(p) != now.get(p))
        seen = now
        if paths:
            await changed(paths)
