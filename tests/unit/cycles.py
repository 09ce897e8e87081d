"""Something lost that no count of references frees."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator


class _Link:
    def __init__(self) -> None:
        self.itself = self


def old_cycle() -> weakref.ref[object]:
    """A cycle that the collector has seen alive, and that nobody can reach now."""
    link = _Link()
    gc.collect(1)
    return weakref.ref(link)


@contextlib.contextmanager
def collected_only_when_told() -> Iterator[None]:
    """While the collector does nothing of its own accord."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
