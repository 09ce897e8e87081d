"""Where results are kept: one JSON file a run, named by what was measured and when.

Owns the directory and the file's form; ``whole`` finds the file by the line it is told in.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def keep(name: str, document: Mapping[str, Any]) -> Path:
    """Write ``document`` down as ``name`` of now (UTC), and say where."""
    now = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    path = RESULTS / f"{name}-{now}.json"
    text = json.dumps({"at": now, **document}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"written: {path}", file=sys.stderr)
    return path
