"""What docs/templates.md tells authors is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailgate.render import Broken, Catalogue, Renderer, Template, built_in_root
from mailgate.render.budget import WORK
from mailgate.render.compiling import _MANIFEST_KEYS
from mailgate.render.filters import FILTERS
from mailgate.render.schema import RESERVED

GUIDE = (Path(__file__).parents[3] / "docs" / "templates.md").read_text("utf-8")
FILES = dict(re.findall(r"^```\w+ (\S+/\S+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
REFUSED = re.findall(r"^```refused\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)[0].splitlines()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    return tmp_path


def test_the_template_of_the_guide_serves(root: Path) -> None:
    catalogue = Catalogue.load([root, built_in_root()])
    template = catalogue.get("order_shipped")
    assert isinstance(template, Template), template
    assert set(template.fixtures) == {"minimal", "typical"}
    renderer = Renderer(catalogue)
    for data in template.fixtures.values():
        assert renderer.prove("order_shipped", data) == []
    parts = renderer.preview("order_shipped", template.fixtures["typical"])
    assert parts.subject == "Your order is on its way with Postly"
    assert "Tea pot: 1 ×" in parts.text
    assert "Follow the parcel (https://shop.example/parcels/42)" in parts.text
    assert "The kettle follows on Monday." in parts.html


def test_the_theme_of_the_guide_dresses_the_built_in_templates_too(root: Path) -> None:
    renderer = Renderer(Catalogue.load([root, built_in_root()]))
    data = {"name": "A", "carrier": "P", "url": "https://x.example", "items": []}
    for parts in (
        renderer.preview("order_shipped", data),
        renderer.preview("account_activation", {"url": "https://x.example"}),
    ):
        assert 'bgcolor="#8a4b17"' in parts.html
        assert "The Tea Shop" in parts.text


def test_the_faults_that_the_guide_shows(root: Path) -> None:
    found = Catalogue.load([root]).check_data(
        "order_shipped", {"name": "A", "url": "https://x.example", "items": [], "itmes": 1}
    )
    for fault in found:
        assert f"`{fault.field}: {fault.rule}`" in GUIDE
    assert len(found) == 2


@pytest.mark.parametrize("line", REFUSED)
def test_each_refused_line_is_refused_for_the_reason_given(root: Path, line: str) -> None:
    source, _, reason = re.sub(r" {2,}", "\0", line).partition("\0")
    if not reason:
        source, _, reason = line.partition("%} cannot")
        source, reason = source + "%}", "cannot" + reason
    if "<link" in line:
        source, _, reason = line.partition("> fetches")
        source, reason = source + ">", "fetches" + reason
    page = root / "order_shipped" / "en.html"
    page.write_text(source, "utf-8")
    found = Catalogue.load([root]).get("order_shipped")
    assert isinstance(found, Broken), source
    assert reason in found.error


def test_every_filter_variable_and_key_is_in_the_guide() -> None:
    section = GUIDE.partition("## Filters")[2].partition("\n- `url`")[0]
    assert sorted(re.findall(r"`(\w+)`", section)) == sorted(FILTERS)
    variables = GUIDE.partition("## Variables")[2].partition("## Languages")[0]
    for name in RESERVED:
        assert f"`{name}`" in variables
    manifest = GUIDE.partition("### The manifest")[2].partition("### Shared")[0]
    assert re.findall(r"^\| `(\w+)`", manifest, re.MULTILINE) == list(_MANIFEST_KEYS)
    assert f"{WORK:,} loop passes" in GUIDE


def test_every_macro_of_the_kit_is_in_the_guide_with_its_arguments() -> None:
    kit = (built_in_root() / "_components" / "kit.html").read_text("utf-8")
    for name, arguments in re.findall(r"{% macro (\w+)\((.*?)\) %}", kit):
        plain = re.sub(r'=""', "", arguments)
        assert f"`kit.{name}({plain})`" in GUIDE
