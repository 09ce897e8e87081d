"""Pictures of the built-in templates, and the contact sheets beside this file.

    ./dev run python docs/pictures/make.py [--all DIR] [TEMPLATE...]

Needs Chromium with chromedriver, the test requirements, and fonts for all three
scripts (on Debian fonts-dejavu and fonts-wqy-microhei). Each template is
shown by its typical data in a browser that fetches nothing, in English,
Chinese and Arabic, on a phone and a desktop, light and dark: ``templates.jpg``. Its other
data (least, most, hostile, in other scripts) is on ``fixtures.jpg``. ``--all`` writes
one page of pictures for each template into a directory, to look at.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import html
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from mailgate.render import Catalogue, Renderer, Template, built_in_root

SHEET = Path(__file__).with_name("templates.jpg")
#: Each template by all its data, in English.
EDGES = Path(__file__).with_name("fixtures.jpg")
#: What shows each language at its best.
FIXTURES = {"en": "typical", "zh-CN": "cjk", "ar": "rtl"}
#: Language, width in CSS pixels, colour scheme.
View = tuple[str, int, str]
VIEWS: list[View] = [
    (locale, width, scheme)
    for locale in FIXTURES
    for width in (800, 375)
    for scheme in ("light", "dark")
]
ON_SHEET: list[View] = [
    ("en", 800, "light"),
    ("en", 375, "dark"),
    ("zh-CN", 375, "light"),
    ("ar", 375, "light"),
]
_PHOTO = "https://northlight.example/images/queues.png"
#: In place of the photograph of the digest, which is nowhere to be had.
_DRAWN = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 504 220'><rect width='504' height='220'"
    " fill='#c9d8f5'/><circle cx='400' cy='60' r='26' fill='#ffe9b8'/><path d='M0 150h504v70H0z'"
    " fill='#5f86d6'/><path d='M60 140h90l-14 24H76zM200 140h90l-14 24h-60zM340 140h90l-14 24h-60z'"
    " fill='#274690'/><path d='M104 60v80h-34zM244 60v80h-34zM384 60v80h-34z' fill='#fff'/></svg>"
)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium that resolves no host name."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        sys.exit("chromium and chromedriver are needed")
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
    try:
        yield opened
    finally:
        opened.quit()


class Camera:
    """Takes pictures of pages as a client with a width and a colour scheme shows them."""

    def __init__(self, opened: Any, scratch: Path) -> None:
        self._browser, self._page = opened, scratch / "page.html"

    def take(self, page: str, width: int, scheme: str, kind: str = "png", most: int = 4000) -> str:
        """The whole page, down to ``most`` pixels, as base64."""
        cdp = self._browser.execute_cdp_cmd
        feature = {"name": "prefers-color-scheme", "value": scheme}
        cdp("Emulation.setEmulatedMedia", {"features": [feature]})
        size = {"width": width, "deviceScaleFactor": 1, "mobile": width < 500}
        cdp("Emulation.setDeviceMetricsOverride", {**size, "height": 400})
        self._page.write_text(page, "utf-8")
        self._browser.get(self._page.as_uri())
        tall = self._browser.execute_script("return document.documentElement.scrollHeight")
        cdp("Emulation.setDeviceMetricsOverride", {**size, "height": min(tall, most)})
        given = {"format": kind} if kind == "png" else {"format": kind, "quality": 82}
        return str(cdp("Page.captureScreenshot", given)["data"])


def views(camera: Camera, renderer: Renderer, template: Template, wanted: Sequence[View]) -> str:
    """The pictures of one template side by side, as HTML."""
    out = []
    for locale, width, scheme in wanted:
        data = template.fixtures[FIXTURES[locale]]
        page = renderer.preview(template.name, data, locale).html
        page = page.replace(_PHOTO, "data:image/svg+xml," + _DRAWN.replace("#", "%23"))
        shot = camera.take(page, width, scheme)
        name = f"{template.name}, {locale}, {width} pixels, {scheme}"
        image = f'<img alt="{name}" src="data:image/png;base64,{shot}">'
        out.append(f'<span class="w{width}">{image}</span>')
    return "".join(out)


def edges(camera: Camera, renderer: Renderer, template: Template) -> str:
    """Each fixture on a phone and a desktop, light and dark, as one row of HTML."""
    out = []
    for fixture in ("minimal", "typical", "hostile", "max", "cjk", "rtl"):
        page = renderer.preview(template.name, template.fixtures[fixture], "en").html
        page = page.replace(_PHOTO, "data:image/svg+xml," + _DRAWN.replace("#", "%23"))
        for width, scheme in ((800, "light"), (800, "dark"), (375, "light"), (375, "dark")):
            shot = camera.take(page, width, scheme, "jpeg", most=1500)
            name = f"{template.name}, {fixture}, {width} pixels, {scheme}"
            image = f'<img alt="{name}" src="data:image/jpeg;base64,{shot}">'
            out.append(f'<span class="w{width}">{image}</span>')
    return "".join(out)


_STYLE = """
body { margin: 0; padding: 24px; background: #dfe3ea; font: 600 15px Arial, sans-serif; }
.sheet { display: grid; grid-template-columns: repeat(3, 1fr); gap: 26px 30px; }
h2 { margin: 0 0 8px; font-size: 15px; color: #1b2130; }
.row { display: flex; gap: 8px; align-items: flex-start; }
.row span { overflow: hidden; box-shadow: 0 1px 3px #0003; }
.row img { display: block; width: 100%; }
.sheet span { max-height: 260px; }
.sheet .w800 { width: 200px; }
.sheet .w375 { width: 118px; }
.edges .row { gap: 4px; margin-bottom: 14px; }
.edges span { max-height: 200px; }
.edges .w800 { width: 108px; }
.edges .w375 { width: 62px; }
.all .row { flex-wrap: wrap; }
.all .w800 { width: 480px; }
.all .w375 { width: 300px; }
"""


def main() -> None:
    """Write the contact sheet, or with ``--all`` a page for each template."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=Path, metavar="DIR")
    parser.add_argument("template", nargs="*")
    given = parser.parse_args()
    renderer = Renderer(Catalogue.load([built_in_root()]))
    templates = [renderer.catalogue.get(name) for name in renderer.catalogue.names()]
    cells: list[str] = []
    rows: list[str] = []
    with browser() as opened, tempfile.TemporaryDirectory() as scratch:
        camera = Camera(opened, Path(scratch))
        for template in templates:
            assert isinstance(template, Template), template
            if given.template and template.name not in given.template:
                continue
            wanted = VIEWS if given.all else ON_SHEET
            row = views(camera, renderer, template, wanted)
            cells.append(
                f'<div><h2>{html.escape(template.name)}</h2><div class="row">{row}</div></div>'
            )
            if not given.all:
                row = edges(camera, renderer, template)
                rows.append(f'<h2>{html.escape(template.name)}</h2><div class="row">{row}</div>')
            if given.all:
                page = f'<style>{_STYLE}</style><div class="all">{cells.pop()}</div>'
                given.all.mkdir(parents=True, exist_ok=True)
                shot = base64.b64decode(camera.take(page, 2000, "light", most=9000))
                (given.all / f"{template.name}.png").write_bytes(shot)
        if cells:
            page = f'<style>{_STYLE}</style><div class="sheet">{"".join(cells)}</div>'
            _write(SHEET, camera.take(page, 1840, "light", "jpeg", most=9000))
            page = f'<style>{_STYLE}</style><div class="edges">{"".join(rows)}</div>'
            _write(EDGES, camera.take(page, 2300, "light", "jpeg", most=9000))


def _write(target: Path, shot: str) -> None:
    target.write_bytes(base64.b64decode(shot))
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
