"""One headless browser for all tests of local pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.integration.studio.bench import RunningStudio, write_template


@pytest.fixture(scope="session")
def chrome() -> Iterator[Chrome]:
    if not shutil.which("chromedriver"):
        pytest.skip("no chromedriver on the PATH")
    options = ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if binary:
        options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """The folder of the template ``parcel``, in a root of its own."""
    return write_template(tmp_path / "templates")


@pytest.fixture
def open_studio(template: Path) -> Iterator[Callable[..., RunningStudio]]:
    """``open_studio(*more_roots, **configuration)`` serves the root of ``template`` first."""
    opened: list[RunningStudio] = []

    def make(*more: Path, **said: object) -> RunningStudio:
        opened.append(RunningStudio((template.parent, *more), said))
        return opened[-1]

    yield make
    for studio in opened:
        studio.stop()


@pytest.fixture
def studio(open_studio: Callable[..., RunningStudio]) -> RunningStudio:
    return open_studio()
