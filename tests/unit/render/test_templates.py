"""Every built-in template is fit to be sent: small enough, readable, in both languages."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lxml import etree

from mailgate.render import Catalogue, Renderer, Template, built_in_root

RENDERER = Renderer(Catalogue.load([built_in_root()]))
NAMES = [
    "account_activation",
    "contact_feedback",
    "notice",
    "password_reset",
    "reminder",
    "weekly_digest",
    "welcome",
]
MAILS = [
    (name, locale, key)
    for name in NAMES
    for locale in ("en", "zh-CN")
    for key in ("minimal", "typical", "max", "hostile", "rtl")
]
#: Gmail hides what comes after this many bytes.
CLIPPED = 102 * 1024


def template(name: str) -> Template:
    found = RENDERER.catalogue.get(name)
    assert isinstance(found, Template), found
    return found


def test_the_catalogue_is_what_it_says() -> None:
    assert RENDERER.catalogue.names() == NAMES


@pytest.mark.parametrize(("name", "locale", "key"), MAILS)
def test_each_mail_is_well_made(name: str, locale: str, key: str) -> None:
    parts = RENDERER.preview(name, template(name).fixtures[key], locale)
    assert parts.subject.strip() == parts.subject != ""
    assert parts.text.strip()
    assert not re.search(r"\n{3,}", parts.text)
    assert "{{" not in parts.text or key == "hostile"
    tree = etree.fromstring(parts.html, etree.HTMLParser())
    assert tree.get("lang") == locale
    assert tree.get("dir") == "ltr"
    assert all(image.get("alt") is not None for image in tree.iter("img"))
    for table in tree.iter("table"):
        # Read aloud, a table is either layout or has heads.
        assert table.get("role") == "presentation" or next(table.iter("th"), None) is not None
    for node in tree.iter("a", "img"):
        target = node.get("href") or node.get("src")
        assert re.match(r"https?://|mailto:", target)
    assert len(list(tree.iter("h1"))) == 1
    assert not list(tree.iter("script", "link", "form", "iframe"))
    if key in ("minimal", "typical"):
        assert len(parts.html.encode()) < 20_000
    if key != "max":
        assert len(parts.html.encode()) < CLIPPED


@pytest.mark.parametrize("name", NAMES)
def test_required_variables_are_few(name: str) -> None:
    assert set(template(name).schema["required"]) <= set(template(name).fixtures["minimal"])
    assert len(template(name).schema["required"]) <= 3


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_tells_what_each_variable_means(name: str) -> None:
    def described(schema: Any) -> None:
        for key, value in schema.get("properties", {}).items():
            if "$ref" in value:
                continue
            inner = value.get("items", value)
            assert "description" in value or inner.get("properties"), f"{name}: {key}"
            described(inner)

    described(template(name).schema)


def test_notice_takes_exactly_title_body_and_a_button() -> None:
    schema = template("notice").schema
    assert set(schema["properties"]) == {"title", "body", "button"}
    assert schema["required"] == ["title", "body"]
    assert set(schema["properties"]["button"]["properties"]) == {"text", "url"}
    check = RENDERER.catalogue.check_data
    assert check("notice", {"title": "T", "body": "B"}) == []
    button = {"text": "Go", "url": "https://example.com/"}
    assert check("notice", {"title": "T", "body": "B", "button": button}) == []
    assert check("notice", {"title": "T", "body": "B", "product": {}}) != []


def test_the_preheader_is_in_the_html_and_not_in_the_text() -> None:
    parts = RENDERER.preview("welcome", {"name": "Ann"})
    assert "Here is how to begin." in parts.html
    assert "Here is how to begin." not in parts.text


def test_an_authored_text_has_the_link_on_a_line_of_its_own() -> None:
    url = "https://example.com/reset?token=abc&x=1"
    text = RENDERER.preview("password_reset", {"url": url}).text
    assert f"\n{url}\n" in text


def test_a_digest_without_words_of_its_own_is_named_after_its_first_post() -> None:
    posts = [{"title": "First", "url": "https://example.com/1"}]
    assert RENDERER.preview("weekly_digest", {"posts": posts}).subject == "Example weekly: First"
    assert RENDERER.preview("weekly_digest", {"posts": posts, "title": "T"}).subject == "T"


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ("ink", "card"),
        ("body", "card"),
        ("muted", "card"),
        ("muted", "page"),
        ("muted", "tint"),
        ("brand", "card"),
        ("brand", "tint"),
        ("on_brand", "brand"),
        ("dark_ink", "dark_card"),
        ("dark_body", "dark_card"),
        ("dark_muted", "dark_card"),
        ("dark_muted", "dark_page"),
        ("dark_muted", "dark_tint"),
        ("dark_link", "dark_card"),
        ("on_brand", "dark_brand"),
    ],
)
def test_every_pair_of_colours_can_be_read(ink: str, paper: str) -> None:
    """WCAG 2.1, 1.4.3: at least 4.5 to 1 for text."""
    colours = template("notice").theme.tokens["color"]
    one, other = sorted((_luminance(colours[ink]), _luminance(colours[paper])))
    assert (other + 0.05) / (one + 0.05) >= 4.5
