"""The templates of a process that goes on: read again when their files change.

Owns the look at the files' names, times and sizes, and what a change means for the
catalogue. Reads nothing that has not changed. Never waits and never decides when to
look: who holds the shelf does. The operating systems' own ways of watching differ
everywhere, and fail over network file systems, so that none is used.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailgate.render.catalogue import Catalogue
from mailgate.render.errors import Broken, Fault

if TYPE_CHECKING:
    from mailgate.render.template import Template

_log = logging.getLogger(__name__)

#: More files are no template root; whoever names ``/`` by mistake is spared the walk.
_MOST = 20_000

#: What is known of each file: inode, times of contents and of rights in ns, bytes.
Seen = Mapping[str, tuple[int, ...]]


def look(roots: Sequence[Path]) -> Seen:
    """Every file below ``roots`` but hidden ones and editors' copies."""
    seen: dict[str, tuple[int, ...]] = {}
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
                    times = found.st_mtime_ns, found.st_ctime_ns
                    seen[entry.path] = (found.st_ino, *times, found.st_size)
        except OSError:
            continue  # gone between two calls: the next look says what is there
    return seen


def touched(roots: Sequence[Path], paths: Collection[str]) -> frozenset[str] | None:
    """The templates that a change of ``paths`` concerns; ``None`` is all of them."""
    names = set()
    for path in map(Path, paths):
        inside = next((path.relative_to(r) for r in roots if path.is_relative_to(r)), path)
        names.add(inside.parts[0])
    return None if any(name.startswith("_") for name in names) else frozenset(names)


class Shelf:
    """The catalogue of some roots, as it is on disk at the last renewal.

    One thread renews; any number may read ``catalogue`` meanwhile.
    """

    def __init__(self, roots: Sequence[Path], *, default_locale: str = "en") -> None:
        """Reads the roots. Raises ``FileNotFoundError`` for one that is not there to be read."""
        self._roots = tuple(roots)
        self._default_locale = default_locale
        self._read = self._last = look(self._roots)
        self.catalogue = _loaded(self._roots, default_locale, frozenset(self._read.items()))
        self._said = ""

    def check_data(self, template: str, data: Mapping[str, Any]) -> list[Fault]:
        """What ``Catalogue.check_data`` says, by the newest catalogue."""
        return self.catalogue.check_data(template, data)

    def renew(self) -> frozenset[str]:
        """Read what has changed since the last time; gives the templates that are others now.

        A change is read at the second look that finds the files alike: what is being
        copied there is not read by halves. What cannot be read stays as it was.
        """
        now = look(self._roots)
        settled, self._last = now == self._last, now
        if not settled or now == self._read:
            return frozenset()
        names = touched(
            self._roots, [p for p in {*self._read, *now} if self._read.get(p) != now.get(p)]
        )
        self._read = now
        before = self.catalogue
        try:
            newer = self._load(names)
        except OSError as error:
            if str(error) != self._said:
                _log.error("templates cannot be read anew, the old ones serve on: %s", error)
            self._said = str(error)
            self._read = {}  # the next look tries again
            return frozenset()
        self._said = ""
        self.catalogue = newer if names is None else before.renewed(names, newer)
        others = _differing(before, self.catalogue, names)
        for name in sorted(others):
            _say(name, self.catalogue.get(name))
        return others

    def _load(self, names: frozenset[str] | None) -> Catalogue:
        return Catalogue.load(self._roots, default_locale=self._default_locale, only=names)


@functools.lru_cache(maxsize=2)
def _loaded(
    roots: tuple[Path, ...], default_locale: str, _files: frozenset[tuple[str, tuple[int, ...]]]
) -> Catalogue:
    """A catalogue never changes: two shelves of a process over the same files share one."""
    return Catalogue.load(roots, default_locale=default_locale)


def _differing(
    before: Catalogue, after: Catalogue, names: Collection[str] | None
) -> frozenset[str]:
    if names is None:
        names = {*before.names(), *after.names()}
    return frozenset(n for n in names if _identity(before.get(n)) != _identity(after.get(n)))


def _identity(entry: Template | Broken | None) -> tuple[str, str]:
    if entry is None:
        return "", ""
    return ("", entry.error) if isinstance(entry, Broken) else (entry.hash, "")


def _say(name: str, entry: Template | Broken | None) -> None:
    if isinstance(entry, Broken):
        _log.error("template %s is broken, its mail waits: %s", name, entry.error)
    elif entry is None:
        _log.warning("template %s is gone", name)
    else:
        _log.info("template %s was read anew", name)
