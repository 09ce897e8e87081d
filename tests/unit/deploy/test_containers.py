"""The image and the compose file start commands that there are, with keys that there are."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from mailgate.config.load import load, secret_faults, warnings
from mailgate.config.shape import Config
from mailgate.worker import celery_app, loop
from mailgate.worker.settings import time_limits
from tests.unit.deploy.said import (
    COMPOSE,
    FOLDER,
    IMAGE,
    OURS,
    SERVICES,
    environment_of_the_image,
    instructions,
    is_command,
    sets_known_keys,
)

ROOT = Path(__file__).parents[3]
LET_THROUGH = (FOLDER / "Dockerfile.dockerignore").read_text()
WORKERS = [name for name in OURS if SERVICES[name]["command"][0] == "worker"]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A copy of the compose folder in which the secrets were made."""
    copied = tmp_path / "compose"
    shutil.copytree(FOLDER / "compose", copied, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run(["sh", copied / "secrets.sh"], check=True, capture_output=True)
    return copied / "secrets"


# --- The image ---------------------------------------------------------------------------


def test_everything_that_is_copied_is_there_and_sent_to_the_builder() -> None:
    passed = [line[1:] for line in LET_THROUGH.splitlines() if line.startswith("!")]
    for line in instructions("COPY"):
        words = [word for word in line.split() if not word.startswith("--")]
        if "--from=" in line:
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, f"{p}*") for p in passed), source


def test_the_wheel_s_files_are_copied() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wanted = set(built["targets"]["wheel"]["packages"])
    wanted |= {path.split("/")[0] for path in built["targets"]["wheel"]["force-include"]}
    copied = " ".join(instructions("COPY")).split()
    assert wanted <= set(copied)


def test_packages_are_locked_by_hash_and_nothing_is_compiled() -> None:
    installs = [
        step for run in instructions("RUN") for step in run.split("&&") if "install " in step
    ]
    for step in (s for s in installs if "pip" in s):
        assert "--no-deps" in step
        assert "--require-hashes" in step or "--no-index" in step
        assert "--only-binary :all:" in step or "--no-index" in step


def test_the_image_runs_as_nobody_special_and_in_exec_form() -> None:
    user = instructions("USER")[-1]
    assert re.fullmatch(r"\d+:\d+", user)
    assert not user.startswith("0")
    for word in ("ENTRYPOINT", "CMD"):
        assert json.loads(instructions(word)[-1])
    assert "CMD [" in instructions("HEALTHCHECK")[-1]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_the_image_holds_no_secret_and_only_known_keys() -> None:
    environ = environment_of_the_image()
    sets_known_keys(environ)
    assert re.findall(r"(?i)(password|secret|token)\w*=", IMAGE) == []
    listens = {v for k, v in environ.items() if k.startswith("MAILGATE_METRICS__")}
    assert listens == {"0.0.0.0:9464"}
    assert "http://127.0.0.1:9464/health/live" in instructions("HEALTHCHECK")[-1]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing() -> None:
    subprocess.run(["hadolint", FOLDER / "Dockerfile"], check=True)


# --- The compose file --------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_a_service_starts_a_command_that_there_is(name: str) -> None:
    service = SERVICES[name]
    is_command(service["command"])
    tree = tomllib.loads((FOLDER / "compose" / "mailgate.toml").read_text())
    sets_known_keys(service["environment"], tree)
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    for text in service["environment"].values():
        if text.startswith("/run/secrets/"):
            assert text.removeprefix("/run/secrets/") in service["secrets"]


def test_the_configuration_is_right_and_sends_nothing(tmp_path: Path, secrets: Path) -> None:
    environ = {
        key: text.replace("/run/secrets", str(secrets))
        for key, text in SERVICES["worker"]["environment"].items()
    }
    environ["MAILGATE_CONFIG"] = str(FOLDER / "compose" / "mailgate.toml")
    config = load(None, environ, cwd=tmp_path)
    assert secret_faults(config, environ) == []
    assert config.sandbox.mode == "capture"
    assert set(config.relays) == {"main"}
    # What it warns of: that the sandbox is on, and the broker's link inside this one machine.
    said = " ".join(warnings(config))
    assert "sandbox.mode" in said


def test_every_secret_is_made_once_and_both_ends_agree(secrets: Path) -> None:
    def read() -> dict[str, str]:
        return {file.name: file.read_text().strip() for file in secrets.iterdir()}

    made = read()
    assert {f"compose/secrets/{name}" for name in made} == {
        one["file"] for one in COMPOSE["secrets"].values()
    }
    assert secrets.stat().st_mode & 0o077 == 0
    for server, url in (
        (made["rabbitmq_conf"].split(" = ")[1], made["broker_url"]),
        (made["postgres_password"], made["journal_url"]),
        (made["valkey_conf"].split()[1], made["limiter_url"]),
    ):
        assert len(server) == 48
        assert f":{server}@" in url
    subprocess.run(["sh", secrets.parent / "secrets.sh"], check=True, capture_output=True)
    assert read() == made


def test_names_that_services_use_are_declared() -> None:
    for name, service in SERVICES.items():
        for one in service.get("secrets", ()):
            assert (one if isinstance(one, str) else one["source"]) in COMPOSE["secrets"], name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).is_file(), f"{name}: {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name}: {source}"
        for network in service.get("networks", ()):
            assert network == "default" or network in COMPOSE["networks"]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"


def test_what_is_waited_for_can_be_waited_for() -> None:
    for name, service in SERVICES.items():
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], f"{name}: {other}"
            else:
                assert condition["condition"] == "service_completed_successfully"
                assert SERVICES[other]["restart"] == "no"
    # All that reads or writes the journal comes after its schema.
    assert all("upgrade" in SERVICES[name]["depends_on"] for name in OURS if name != "upgrade")


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_has_time_to_drain_and_its_marks_are_found_again(name: str) -> None:
    task = time_limits(Config().worker.deadline).deadline
    drain = task + celery_app.GRACE + loop.LET_GO + celery_app.LAST_RINGS
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= drain + 15
    assert SERVICES[name]["init"]
    assert SERVICES[name]["hostname"] == SERVICES[WORKERS[0]]["hostname"]
    assert "state:/var/lib/mailgate" in SERVICES[name]["volumes"]


def test_prometheus_scrapes_every_process_and_knows_our_alerts() -> None:
    said = yaml.safe_load((FOLDER / "compose" / "prometheus.yml").read_text())
    [job] = said["scrape_configs"]
    [group] = job["static_configs"]
    shown = [name for name in OURS if name not in ("upgrade", "flower")]
    assert group["targets"] == [f"{name}:9464" for name in shown]
    mounted = [v.split(":")[1] for v in SERVICES["prometheus"]["volumes"]]
    assert [f"/etc/prometheus/{rules}" in mounted for rules in said["rule_files"]] == [True]


def test_no_secret_is_kept_in_the_repository() -> None:
    assert "/deploy/compose/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="docker compose is not installed",
)
def test_docker_compose_reads_it() -> None:
    file = str(FOLDER / "compose.yaml")
    subprocess.run(["docker", "compose", "-f", file, "config", "--quiet"], check=True)
