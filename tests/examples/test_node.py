"""The shop in Node.js publishes and hears of its mail, on both brokers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import Setting
from tests.examples.conftest import Town

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The example's directory with its packages, as ``npm ci`` leaves it."""
    directory = tmp_path / "node"
    shutil.copytree(ROOT / "examples" / "node", directory)
    (directory / "node_modules").symlink_to(ROOT / ".venv" / "node" / "node_modules")
    return directory


def run(shop: Path, url: str) -> list[str]:
    done = subprocess.run(
        ["node", "shop.mjs", url, "3"],
        cwd=shop,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def check(lines: list[str]) -> None:
    assert lines[-1] == "done"
    kinds = [re.sub(r"order-\w+", "order", line) for line in lines[:-1]]
    for n in (1, 2, 3):
        mine = [kind.split()[0] for kind in kinds if kind.split()[1] == f"order-{n}"]
        assert mine == ["published", "accepted", "sent"]


def test_on_redis(town: Town, shop: Path) -> None:
    check(run(shop, town.url))


def test_on_rabbitmq(stage: Setting, shop: Path) -> None:
    scene = stage("rabbitmq", "sqlite")
    scene.intake().wait_ready()
    scene.worker(1)
    scene.wait_for_workers(1)
    check(run(shop, scene.broker))
    assert len(scene.relay.taken()) == 3
