"""Four processes over one store: the promise is kept, and the limits are used to the full."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mailgate.config.terms import parse_rate
from tests.unit.limits.promise import allowed, fullest

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 3.0
GLOBAL, A, B, DOMAIN = (
    ("global", "200/s"),
    ("relay:a", "150/s"),
    ("relay:b", "120/s"),
    ("domain:x", "20/s burst 3"),
)
SETS = [[GLOBAL, A], [GLOBAL, B], [GLOBAL, A, DOMAIN]]


async def ask(*arguments: object) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.contract.limits.asker",
        *map(str, arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    said: dict[str, Any] = json.loads(out)
    return said


@pytest.mark.alone
async def test_four_processes_keep_every_limit_and_use_it(shared_store: tuple[str, str]) -> None:
    begin = time.monotonic() + 2.0
    said = await asyncio.gather(
        *(ask(*shared_store, begin, SECONDS, json.dumps(SETS)) for _ in range(4))
    )
    for key, text in (GLOBAL, A, B, DOMAIN):
        rate = parse_rate(text)
        uses = [use for one in said for use in one["uses"].get(key, ())]
        assert 0 < fullest(uses, rate.period) <= allowed(rate), key
    opens = sorted(moment for one in said for moment in one["opens"])
    assert len(opens) == sum(len(one["uses"].get("global", ())) + one["late"] for one in said)
    # From the first permit on, over two seconds: 98% of the tightest limit is given.
    assert sum(moment < opens[0] + 2.0 for moment in opens) >= 0.98 * 2 * 200
