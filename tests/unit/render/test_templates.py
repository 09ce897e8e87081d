"""Every built-in template is fit to be sent: small enough, readable, in each language."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from mailgate.render import Template
from tests.unit.render.house import RENDERER

NAMES = [
    "account_activation",
    "activity_digest",
    "comment_notification",
    "contact_feedback",
    "email_change",
    "event_invitation",
    "export_ready",
    "invoice",
    "new_sign_in",
    "notice",
    "one_time_code",
    "password_reset",
    "payment_failed",
    "receipt",
    "reminder",
    "report_ready",
    "system_alert",
    "trial_ending",
    "unsubscribe_confirmation",
    "weekly_digest",
    "welcome",
]
#: Each language, its direction, and the data that is written in it.
LANGUAGES = {"en": ("ltr", "typical"), "zh-CN": ("ltr", "cjk"), "ar": ("rtl", "rtl")}
KEYS = ["cjk", "hostile", "max", "minimal", "rtl", "typical"]
MAILS = [(name, locale, key) for name in NAMES for locale in LANGUAGES for key in KEYS]
#: Gmail hides what comes after this many bytes.
CLIPPED = 102 * 1024


def template(name: str) -> Template:
    found = RENDERER.catalogue.get(name)
    assert isinstance(found, Template), found
    return found


def test_the_catalogue_is_what_it_says() -> None:
    assert RENDERER.catalogue.names() == NAMES
    for name in NAMES:
        assert template(name).locales == sorted(LANGUAGES)
        assert sorted(template(name).fixtures) == KEYS


@pytest.mark.parametrize(("name", "locale", "key"), MAILS)
def test_each_mail_is_well_made(name: str, locale: str, key: str) -> None:
    parts = RENDERER.preview(name, template(name).fixtures[key], locale)
    assert parts.subject.strip() == parts.subject != ""
    assert parts.text.strip()
    assert not re.search(r"\n{3,}", parts.text)
    assert "{{" not in parts.text or key == "hostile"
    tree = etree.fromstring(parts.html, etree.HTMLParser())
    assert tree.get("lang") == locale
    assert tree.get("dir") == LANGUAGES[locale][0]
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
        # Each cell of a bill carries its styles; a fifth of what Gmail shows is plenty.
        assert len(parts.html.encode()) < CLIPPED / 5
    if key != "max":
        assert len(parts.html.encode()) < CLIPPED


@pytest.mark.parametrize("name", NAMES)
def test_required_variables_are_few(name: str) -> None:
    assert set(template(name).schema["required"]) <= set(template(name).fixtures["minimal"])
    # A bill cannot say less: which, for what, how much, in which currency, paid when.
    assert len(template(name).schema["required"]) <= {"invoice": 4, "receipt": 5}.get(name, 3)


def test_the_guide_lists_each_template_with_its_variables() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "templates.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [A-Z](.*) \|$", guide, re.MULTILINE))
    assert [name for name in rows if name in NAMES] == NAMES
    for name in NAMES:
        words, required, optional = rows[name].split(" | ")
        assert template(name).manifest.description.endswith(words)
        schema = template(name).schema
        assert re.findall(r"`(\w+)`", required) == schema["required"]
        left = set(schema["properties"]) - set(schema["required"])
        everywhere = {"name", "product", "time_zone"}
        assert set(re.findall(r"`(\w+)`", optional)) == left - everywhere


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


#: Latin letters that Chinese and Arabic mails have too: units, protocols, zones.
_EVERYWHERE = {"https", "UTC", "MB", "IP"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("locale", ["zh-CN", "ar"])
def test_no_word_is_left_untranslated(name: str, locale: str) -> None:
    data = template(name).fixtures[LANGUAGES[locale][1]]
    parts = RENDERER.preview(name, data, locale)
    # The preheader is in the HTML alone.
    shown = etree.fromstring(parts.html, etree.HTMLParser()).find("body")
    words = re.findall("[A-Za-z]{2,}", f"{parts.subject} {''.join(shown.itertext())}")
    given = set(re.findall("[A-Za-z]{2,}", json.dumps(data))) | _EVERYWHERE | {"Example"}
    assert set(words) <= given
    assert parts.subject != RENDERER.preview(name, data, "en").subject or name == "notice"


def test_the_lines_of_an_invoice_read_well_without_html() -> None:
    text = RENDERER.preview("invoice", template("invoice").fixtures["typical"]).text
    assert (
        "Item | Qty | Amount\n"
        "Team plan, 12 seats May 2026, €9.00 a seat | 12 | €108.00\n"
        "Extra storage 500 GB | 1 | €15.50\n"
        "Support by phone | 3 h | €240.00\n"
        "Subtotal: €363.50\n"
        "Discount for a year: -€36.35\n"
        "VAT 25%: €81.79\n"
        "Total: €408.94\n"
    ) in text
    assert "Issued: May 1, 2026\nDue: May 31, 2026\n" in text


def test_figures_stand_at_the_end_of_the_line_in_both_directions() -> None:
    data = template("invoice").fixtures["typical"]
    for locale, (first, last) in {"en": ("left", "right"), "ar": ("right", "left")}.items():
        tree = etree.fromstring(RENDERER.preview("invoice", data, locale).html, etree.HTMLParser())
        cells = tree.xpath("//table[@class='figures']//td | //table[@class='figures']//th")
        assert len(cells) == 3 + 3 * 3 + 4 * 2
        for cell in cells:
            wanted = first if cell.get("class") == "label" else last
            assert f"text-align:{wanted}" in cell.get("style")
            assert cell.get("align") == wanted


def test_old_outlook_finds_a_frame_and_a_button_of_full_size() -> None:
    html = RENDERER.preview("welcome", template("welcome").fixtures["typical"]).html
    assert '<!--[if mso]><table role="presentation" width="600"' in html
    (button,) = re.findall(r'<td class="button"[^>]*>', html)
    assert "mso-padding-alt:14px 28px" in button
    assert 'bgcolor="#2f5bd7"' in button


@pytest.mark.parametrize(
    ("days", "en", "ar"),
    [
        (1, "1 day", "يوم واحد"),
        (2, "2 days", "يومين"),
        (3, "3 days", "3 أيام"),
        (10, "10 days", "10 أيام"),
        (11, "11 days", "11 يومًا"),
        (100, "100 days", "100 يوم"),
        (103, "103 days", "103 أيام"),
        (365, "365 days", "365 يومًا"),
    ],
)
def test_numbers_take_the_right_plural(days: int, en: str, ar: str) -> None:
    data = {"ends_on": "2026-05-19", "url": "https://example.com/", "days_left": days}
    assert f"in {en}." in RENDERER.preview("trial_ending", data).text
    assert f"بعد {ar}." in RENDERER.preview("trial_ending", data, "ar").text


def test_a_comment_as_html_is_shown_in_place_of_the_plain_one() -> None:
    data = {"author": "A", "comment": "plain", "url": "https://example.com/"}
    rich = {**data, "comment_html": '<p onclick="x">rich <b>words</b></p><img src="https://x.ex">'}
    html = RENDERER.preview("comment_notification", rich).html
    assert 'rich <b style="color:#1b2130">words</b></p>' in html
    assert "onclick" not in html
    assert "<img" not in html
    text = RENDERER.preview("comment_notification", rich).text
    assert "rich words" in text
    assert "plain" not in text


@pytest.mark.parametrize("severity", ["critical", "warning", "info", "resolved"])
def test_an_alert_says_how_bad_it_is_in_its_subject_and_its_badge(severity: str) -> None:
    parts = RENDERER.preview("system_alert", {"severity": severity, "title": "T"})
    assert parts.subject.lower() == f"{severity}: t"
    assert parts.text.lower().startswith(severity)


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
        ("good", "good_tint"),
        ("warn", "warn_tint"),
        ("bad", "bad_tint"),
        ("ink", "tint"),
        ("body", "tint"),
        ("dark_good", "dark_good_tint"),
        ("dark_warn", "dark_warn_tint"),
        ("dark_bad", "dark_bad_tint"),
        ("dark_ink", "dark_tint"),
        ("dark_body", "dark_tint"),
        ("dark_link", "dark_tint"),
    ],
)
def test_every_pair_of_colours_can_be_read(ink: str, paper: str) -> None:
    """WCAG 2.1, 1.4.3: at least 4.5 to 1 for text."""
    colours = template("notice").theme.tokens["color"]
    one, other = sorted((_luminance(colours[ink]), _luminance(colours[paper])))
    assert (other + 0.05) / (one + 0.05) >= 4.5
