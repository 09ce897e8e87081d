"""Names that a shell completes: of streams, relays, producers, templates and what else is said.

Owns where they are looked up: in the configuration, on disk and, for error classes, in the
journal. Whatever goes wrong there completes nothing, and says nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from mailgate.config.shape import Config

Complete = Callable[[typer.Context, str], list[str]]


def _completes(names: Callable[[Config], Iterable[str]]) -> Complete:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            found = names(_config(ctx))
        except Exception:  # noqa: BLE001 - a shell that waits for a name wants no traceback
            return []
        return sorted(name for name in found if name.startswith(incomplete))

    return complete


def _config(ctx: typer.Context) -> Config:
    from mailgate.config.embedded import complete
    from mailgate.config.load import load

    said = ctx.find_root().params.get("config")
    return complete(load(Path(said) if said else None, os.environ, cwd=Path.cwd()))


def _templates(config: Config) -> Iterable[str]:
    from mailgate.render.catalogue import built_in_root

    roots = (*config.templates.path, built_in_root())
    return {p.name for root in roots for p in root.iterdir() if (p / "template.toml").exists()}


def _error_classes(config: Config) -> Iterable[str]:
    from mailgate.journal.database import Database
    from mailgate.journal.filters import TROUBLE, Filter
    from mailgate.journal.search import counts

    database = Database(config.journal.url or "", hot=False)
    try:
        choice = Filter(states=TROUBLE)
        found = database.read_now(lambda c: counts(c, choice, ["error_class"]))
    finally:
        database.close()
    return [row["error_class"] for row in found if row["error_class"]]


def _states(_config: Config) -> Iterable[str]:
    from mailgate.model.state import State

    return [state.value for state in State]


streams = _completes(lambda config: config.streams)
relays = _completes(lambda config: config.relays)
producers = _completes(lambda config: config.producers)
schedules = _completes(lambda config: config.schedules)
templates = _completes(_templates)
error_classes = _completes(_error_classes)
states = _completes(_states)

#: What is completed after ``pause KIND`` and ``resume KIND``.
_BY_KIND = {
    "stream": streams,
    "relay": relays,
    "producer": producers,
    "template": templates,
    "schedule": schedules,
    "lane": _completes(lambda config: ("high", "normal", "bulk")),
    "domain": _completes(lambda config: config.limits.domain),
}


def of_kind(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of the kind that was said before."""
    kind = ctx.params.get("kind")
    complete = _BY_KIND.get(str(getattr(kind, "value", kind)))
    return complete(ctx, incomplete) if complete else []
