"""The systemd units start commands that there are, confined, and wait for the whole drain."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mailgate.config.shape import Config
from mailgate.worker import celery_app, loop
from mailgate.worker.settings import time_limits
from tests.unit.deploy.said import is_command, sets_known_keys

FOLDER = Path(__file__).parents[3] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
CONFINED = FOLDER / "mailgate-.service.d" / "10-confined.conf"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def said(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The units as they are installed, their program being one that is there."""
    copied = tmp_path / "units"
    shutil.copytree(FOLDER, copied)
    for unit in copied.glob("*.service"):
        text = unit.read_text().replace("/opt/mailgate/bin/mailgate", "/bin/true")
        unit.write_text(text)
    return copied


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_that_there_is(unit: Path) -> None:
    [line] = said(unit, "ExecStart")
    program, *words = line.replace("%i", "high").split()
    assert program == "/opt/mailgate/bin/mailgate"
    is_command(words)
    pairs = " ".join(said(unit, "Environment")).split()
    environ = dict(pair.split("=", 1) for pair in pairs)
    assert environ["MAILGATE_STATE_DIR"] == "/var/lib/mailgate"
    sets_known_keys(environ)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_never_runs_as_root_and_comes_back(unit: Path) -> None:
    assert said(unit, "User") == said(unit, "StateDirectory") == ["mailgate"]
    assert unit.name.startswith(CONFINED.parent.name.removesuffix(".service.d"))
    lasting = said(unit, "Type") != ["oneshot"]
    assert said(unit, "Restart") == (["always"] if lasting else [])
    assert said(unit, "StartLimitIntervalSec") == (["0"] if lasting else [])
    assert said(unit, "PartOf") == (["mailgate.target"] if lasting else [])


def test_what_reads_its_configuration_again_is_told_by_reload() -> None:
    told = {unit.stem for unit in UNITS if said(unit, "ExecReload") == ["/bin/kill -HUP $MAINPID"]}
    assert told == {f"mailgate-{name}" for name in ("intake", "worker", "worker@", "beat")}


def test_the_boot_id_stays_in_sight() -> None:
    assert said(CONFINED, "ProcSubset") == []


@pytest.mark.parametrize("name", ["mailgate-worker.service", "mailgate-worker@.service"])
def test_a_worker_is_killed_only_after_the_longest_drain(name: str) -> None:
    task = time_limits(Config().worker.deadline).deadline
    drain = task + celery_app.GRACE + loop.LET_GO + celery_app.LAST_RINGS
    [stop] = said(FOLDER / name, "TimeoutStopSec")
    assert drain + 15 <= int(stop) <= drain + 30
    # The main process drains its children; what is left at the end is killed with it.
    assert said(FOLDER / name, "KillMode") == ["mixed"]


@needs_systemd
def test_systemd_finds_nothing_to_say(folder: Path) -> None:
    units = [str(one) for one in (*folder.glob("*.service"), folder / "mailgate.target")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True
    )
    assert [line for line in done.stderr.splitlines() if "mailgate" in line] == []
    assert done.returncode == 0


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_confined(unit: Path, folder: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", folder / unit.name],
        capture_output=True,
        text=True,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
