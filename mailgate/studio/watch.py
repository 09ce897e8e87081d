"""Notices when a file of the template roots is saved.

Owns the rhythm of the looking, several times a second, and the waiting for editors
that write in steps. Reads no file; ``render.shelf`` looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from mailgate.render.shelf import Seen, look

#: Between two looks, and while something is being written (seconds).
EVERY, SETTLING = 0.3, 0.06
#: A change that never settles is shown as it is after so long (seconds).
_PATIENCE = 1.5


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
