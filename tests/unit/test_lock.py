"""The lock files say what pyproject says, and can be installed anywhere."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
#: What an extra brings may be imported: where it is missing, mailgate says so.
OPTIONAL = {canonicalize_name(Requirement(r).name) for rs in EXTRAS.values() for r in rs}
#: What a producer's program brings along: each is imported by a module for its users alone.
PRODUCERS = {"django", "flask", "blinker", "pytest"}
RUN = [Requirement(r) for r in PROJECT["project"]["dependencies"]]
TEST = [Requirement(r) for r in PROJECT["dependency-groups"]["test"]]
FUZZ = [Requirement(r) for r in PROJECT["dependency-groups"]["fuzz"]]
BUILD = [Requirement(r) for r in PROJECT["build-system"]["requires"]]


def locked(name: str) -> dict[str, Requirement]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = [Requirement(line.partition("--hash")[0]) for line in lines]
    return {canonicalize_name(r.name): r for r in found}


def version(pin: Requirement) -> Version:
    (only,) = pin.specifier
    assert only.operator == "==", f"{pin} is not pinned"
    return Version(only.version)


@pytest.mark.parametrize("wanted", RUN, ids=str)
def test_each_dependency_is_in_the_run_lock_as_pyproject_wants_it(wanted: Requirement) -> None:
    pin = locked("run").get(canonicalize_name(wanted.name))
    assert pin is not None, "not locked: ./dev lock"
    assert version(pin) in wanted.specifier, "another version is locked: ./dev lock"


@pytest.mark.parametrize("wanted", TEST, ids=str)
def test_each_test_dependency_is_in_the_test_lock(wanted: Requirement) -> None:
    pin = locked("test").get(canonicalize_name(wanted.name))
    assert pin is not None, "not locked: ./dev lock"
    assert version(pin) in wanted.specifier, "another version is locked: ./dev lock"


@pytest.mark.parametrize("wanted", FUZZ, ids=str)
def test_what_fuzzing_needs_is_in_the_fuzz_lock(wanted: Requirement) -> None:
    pin = locked("fuzz").get(canonicalize_name(wanted.name))
    assert pin is not None, "not locked: ./dev lock"
    assert version(pin) in wanted.specifier, "another version is locked: ./dev lock"


@pytest.mark.parametrize("wanted", BUILD, ids=str)
def test_what_builds_the_wheel_is_in_the_build_lock(wanted: Requirement) -> None:
    pin = locked("build").get(canonicalize_name(wanted.name))
    assert pin is not None, "not locked: ./dev lock"
    assert version(pin) in wanted.specifier, "another version is locked: ./dev lock"


def test_tests_run_with_the_versions_that_run_in_production() -> None:
    run, test = locked("run"), locked("test")
    assert {name: version(pin) for name, pin in run.items()} == {
        name: version(pin) for name, pin in test.items() if name in run
    }


@pytest.mark.parametrize(("name", "least"), [("run", 20), ("test", 20), ("build", 2), ("fuzz", 0)])
def test_every_locked_package_has_hashes_and_no_address(name: str, least: int) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=\S)", text)
    packages = [entry for entry in entries if not entry.startswith("#")]
    assert len(packages) > least
    assert [p.split()[0] for p in packages if "--hash=sha256:" not in p] == []
    assert re.findall(r".*(?://|file:|--index|--find-links| @ ).*", text) == []


def test_everything_that_mailgate_imports_is_in_the_run_lock() -> None:
    """The tests' environment holds more than production does: an import could lean on that."""
    owners = packages_distributions()
    imported = {
        name.partition(".")[0]
        for path in (ROOT / "mailgate").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    foreign = imported - sys.stdlib_module_names - {"mailgate"}
    assert "celery" in foreign
    lock = locked("run")
    absent = {
        name
        for name in foreign
        if not any(canonicalize_name(owner) in lock for owner in owners.get(name, ()))
    }
    absent -= PRODUCERS
    absent -= {n for n in absent if OPTIONAL & set(map(canonicalize_name, owners[n]))}
    assert absent == set()


def test_the_parser_of_html_is_one_without_the_known_hole() -> None:
    """lxml before 6.1 resolves entities from files by default (CVE-2026-41066)."""
    assert version(locked("run")["lxml"]) >= Version("6.1.0")


def test_the_audit_asks_about_everything_that_is_locked() -> None:
    script = (ROOT / "dev").read_text()
    [names] = re.findall(r"for file in ([a-z ]+); do\n +\.venv/audit/bin/pip-audit", script)
    assert set(names.split()) == {path.stem for path in (ROOT / "requirements").glob("*.txt")}
    assert "exec ./dev audit" in (ROOT / ".ci/audit").read_text()
