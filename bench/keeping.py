"""Where results are kept: one JSON file a run, named by what was measured and when.

Owns the directory, the file's form and the name of the code that was measured; ``whole``
finds the file by the line it is told in.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
#: What makes a result another one; the results themselves do not.
_CODE = ("mailgate", "migrations", "templates", "tests", "bench", ":!bench/results")


def commit() -> str:
    """The commit of this checkout, and ``+`` when there is more in it than that."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", *_CODE)
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def keep(name: str, document: Mapping[str, Any]) -> Path:
    """Write ``document`` down as ``name`` of now (UTC), and say where."""
    now = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    path = RESULTS / f"{name}-{now}.json"
    text = json.dumps({"at": now, **document}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"written: {path}", file=sys.stderr)
    return path
