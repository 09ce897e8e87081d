"""The environment of the processes that are measured: what those who run mailgate have.

Owns the difference between what is installed here, for the tests, and what
``requirements/run.txt`` names. Without it some MiB of each process would be libraries that
only developers have.
"""

from __future__ import annotations

import functools
import os
import re
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
_NAME = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)


def environ() -> dict[str, str]:
    """Of a process that has only what ``requirements/run.txt`` installs."""
    paths = f"{ROOT / 'bench' / 'installed'}{os.pathsep}{ROOT}"
    return {**os.environ, "PYTHONPATH": paths, "BENCH_NOT_INSTALLED": " ".join(_others())}


@functools.cache
def _others() -> list[str]:
    """The top-level modules of what is installed beyond that."""
    named = _NAME.findall((ROOT / "requirements" / "run.txt").read_text())
    wanted = {_normal(name) for name in named}
    return sorted(
        module
        for module, names in packages_distributions().items()
        if module.isidentifier() and not wanted.intersection(map(_normal, names))
    )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
