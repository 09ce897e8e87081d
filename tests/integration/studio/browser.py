"""A real browser as a person uses it: what is seen, what is pressed, what it complains of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

#: Where pictures go, when they are wanted.
PICTURES = os.environ.get("STUDIO_PICTURES")


class Tab:
    """What a person sees and does."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.size(1200, 800)
        driver.get_log("browser")
        driver.get(url)

    def size(self, width: int, height: int) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def scheme(self, name: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": name}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def find(self, css: str) -> WebElement:
        return until(lambda: self.driver.find_element(By.CSS_SELECTOR, css))

    def text(self, css: str) -> str:
        return self.find(css).text

    def shows(self, css: str) -> bool:
        return self.find(css).is_displayed()

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def focused(self) -> str:
        return str(self.driver.execute_script("return document.activeElement.id"))

    def complaints(self) -> list[str]:
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]

    def picture(self, name: str) -> None:
        if PICTURES:
            time.sleep(0.3)
            self.driver.save_screenshot(str(Path(PICTURES) / f"{name}.png"))


def until(check: Callable[[], Any], seconds: float = 8.0) -> Any:
    """The first true answer of ``check``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := check():
                return found
        except Exception as error:
            if time.monotonic() > deadline:
                raise AssertionError("it did not come") from error
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)
