"""Rendering over process borders, and in a browser that we did not write."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailgate.render import Catalogue, Renderer, Template, built_in_root

_PROGRAM = """
import hashlib
from mailgate.model.address import Address
from mailgate.model.message import Letter
from mailgate.render import Catalogue, Renderer, built_in_root

renderer = Renderer(Catalogue.load([built_in_root()]))
digest = hashlib.sha256()
for name in renderer.catalogue.names():
    template = renderer.catalogue.get(name)
    digest.update(template.hash.encode())
    fixtures = list(template.fixtures.values())
    # Each language and each fixture, not each of one with each of the other.
    for n in range(max(len(template.locales), len(fixtures))):
        digest.update(
            renderer.render(
                Letter(
                    message_id="<1@example.com>",
                    date=1_700_000_000_000,
                    boundary_seed="seed",
                    sender=Address("a@example.com", "Example"),
                    to=(Address("b@example.com"),),
                    template=name,
                    data=fixtures[n % len(fixtures)],
                    locale=template.locales[n % len(template.locales)],
                )
            )
        )
print(digest.hexdigest())
"""


def test_every_process_renders_the_same_bytes() -> None:
    """A retry on another worker sends what the first attempt sent."""
    found = set()
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", _PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        found.add(done.stdout)
    assert len(found) == 1
    assert len(found.pop().strip()) == hashlib.sha256().digest_size * 2


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver here")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chromium
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


def test_no_template_is_wider_than_a_phone_or_loses_its_dark_mode(
    browser: Any, tmp_path: Path
) -> None:
    renderer = Renderer(Catalogue.load([built_in_root()]))
    page = tmp_path / "mail.html"

    def look(width: int, scheme: str) -> Any:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.as_uri())
        return browser.execute_script(
            "const card = document.querySelector('.card'), all = document.documentElement;"
            "return [all.scrollWidth, getComputedStyle(card).backgroundColor,"
            " card.getBoundingClientRect().width]"
        )

    for name in renderer.catalogue.names():
        template = renderer.catalogue.get(name)
        assert isinstance(template, Template)
        for key in ("typical", "max", "hostile"):
            page.write_text(renderer.preview(name, template.fixtures[key]).html, "utf-8")
            width, colour, _ = look(375, "light")
            assert (width, colour) == (375, "rgb(255, 255, 255)"), f"{name} {key}"
        width, colour, card = look(800, "dark")
        assert (width, colour) == (800, "rgb(25, 30, 39)"), name
        assert card == 600
