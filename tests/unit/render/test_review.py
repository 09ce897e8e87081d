"""What the check says about templates, with file and line; the built-in ones are without fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mailgate.render import Catalogue, Renderer, Template
from mailgate.render.findings import findings
from mailgate.render.reading import contrast, cut_off, plain_text, too_pale
from mailgate.render.review import remarks

Build = Callable[..., Renderer]


def said(renderer: Renderer) -> list[str]:
    """Every finding but those about fixtures that a test did not write."""
    found = [f"{f.level}: {f}" for f in findings(renderer, "t")]
    return [words for words in found if "there is none" not in words and "nowhere" not in words]


def test_nothing_is_to_be_said_about_the_sources_of_the_built_in_templates(
    built_in: Catalogue,
) -> None:
    for name in built_in.names():
        template = built_in.get(name)
        assert isinstance(template, Template)
        assert remarks(template) == []


@pytest.mark.parametrize(
    ("css", "who"),
    [
        ("display: flex", "Outlook"),
        ("gap: 4px", "Outlook"),
        ("position: absolute", "Gmail and Outlook"),
        ("float: left", "Outlook"),
        ("background: url(cid:x)", "Outlook"),
        ("background-image: linear-gradient(red, blue)", "Outlook"),
        ("color: var(--ink)", "Outlook and Gmail"),
        ("width: calc(100% - 4px)", "Outlook"),
        ("font-size: 1.2rem", "Outlook"),
        ("object-fit: cover", "Outlook and Gmail"),
        ("opacity: 0.5", "Outlook"),
    ],
)
def test_css_that_mail_programs_do_not_know(renderer_of: Build, css: str, who: str) -> None:
    html = f"<style>\n.a {{ margin: 0 }}\n.a {{ {css} }}\n</style>\n<p class='a'>{{{{ name }}}}</p>"
    [finding] = said(renderer_of(html))
    assert finding.startswith("warning: t/en.html line 3: ")
    assert finding.endswith(f"is not known to {who}")
    kept = html.replace("<style>", '<style data-premailer="ignore">')
    assert said(renderer_of(kept)) == []
    [finding] = said(renderer_of(f'{{{{ name }}}}\n<p style="{css}">x</p>'))
    assert finding.startswith("warning: t/en.html line 2: ")


def test_a_sheet_of_its_own_and_what_is_left_alone(renderer_of: Build) -> None:
    files = {
        "_css/one.css": "/* position: fixed */\n.b { color: #000 }\n.a { float: right }",
        "_css/two.css": "@media (min-width: 600px) { .a { display: grid } }",
    }
    html = (
        '<style>{% include "_css/one.css" %}</style>'
        '<style data-premailer="ignore">{% include "_css/two.css" %}</style>'
        "<!--[if mso]><style>p { position: static }</style><![endif]-->"
        '{# <p style="float: left"> #}<p class="a" style="border: 0; margin: 0">{{ name }}</p>'
    )
    assert said(renderer_of(html, files=files)) == [
        "warning: _css/one.css line 3: float is not known to Outlook"
    ]


def test_pictures_need_words(renderer_of: Build) -> None:
    html = (
        "<p>{{ name }}</p>\n"
        '<img src="https://x.example/a.png" alt="">\n'
        '<img src="{{ url|url }}"\n title="a > b">\n'
        '<img src="http://x.example/a.png" alt="x">'
    )
    assert said(renderer_of(html)) == [
        'error: t/en.html line 3: a picture without alt: say what it shows, or alt="" where it'
        " says nothing",
        "warning: t/en.html line 5: a picture over http: is shown by few",
    ]


def test_tables_are_layout_or_have_heads(renderer_of: Build) -> None:
    html = (
        "<p>{{ name }}</p><table><tr><th>a</th><td>b</td></tr></table>\n"
        '<table role="presentation"><tr><td>b</td></tr></table>\n'
        "<table><tr><td>b</td></tr></table>"
    )
    [finding] = said(renderer_of(html))
    assert finding.startswith("warning: t/en.html line 3: a table without heads")


def test_variables_that_nobody_says(renderer_of: Build) -> None:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {"name": {}, "url": {}, "never": {}, "product": {"$ref": "mailgate:product"}},
    }
    files = {"de.html": "<p>{{ name }}</p>", "de.subject": "x"}
    renderer = renderer_of("{{ name }} {{ url }}", schema=schema, files=files)
    found = renderer.catalogue.get("t")
    assert isinstance(found, Template)
    assert remarks(found) == [
        ("t/context.schema.json", 1, "url is not used in de"),
        ("t/context.schema.json", 1, "never is used nowhere"),
    ]


def test_pale_text_is_named_with_the_rule_that_makes_it(renderer_of: Build) -> None:
    fixture = json.dumps({"name": "Ann"})
    html = (
        "<html><head><style>\n.card { background-color: #eeeeee }\n"
        ".a { color: #999999; }\n.big { color: #777777; font-size: 24px }\n</style></head>"
        '<body><table role="presentation"><tr><td class="card"><p class="a">{{ name }}</p>'
        '<p class="big">large</p><p style="color: #ccc">own</p>'
        '<p style="display:none;color:#eee">hidden</p></td></tr></table></body></html>'
    )
    renderer = renderer_of(html, files={"fixtures/typical.json": fixture})
    assert said(renderer) == [
        "warning: t/en.html line 3: #999999 on #eeeeee is 2.5 to 1, too pale to read",
        "warning: t/en.html line 5: #cccccc on #eeeeee is 1.4 to 1, too pale to read",
    ]


def test_contrast_is_that_of_wcag() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((255, 255, 255), (118, 118, 118)) == pytest.approx(4.54, abs=0.01)


def test_every_text_of_every_built_in_template_can_be_read(built_in: Catalogue) -> None:
    renderer = Renderer(built_in)
    for name in built_in.names():
        template: Any = built_in.get(name)
        parts = renderer.preview(name, template.fixtures["typical"])
        assert too_pale(parts.html, {}, name) == []
        assert list(plain_text(parts.html, parts.text)) == []
        assert cut_off(parts.html) == ""


def test_gmail_cuts_off_after_102_kb(renderer_of: Build) -> None:
    fixtures = {
        f"fixtures/{key}.json": json.dumps({"name": "Ann", "items": ["x" * 1000] * count})
        for key, count in (("typical", 90), ("max", 110))
    }
    html = "<p>{{ name }}</p>{% for item in items %}<p>{{ item }}</p>{% endfor %}"
    assert said(renderer_of(html, files=fixtures)) == [
        "warning: t/fixtures/max.json: in en: 108 KB of HTML: Gmail cuts off after 102 KB"
    ]
    fixtures["fixtures/typical.json"] = fixtures["fixtures/max.json"]
    assert len([s for s in said(renderer_of(html, files=fixtures)) if s.startswith("error")]) == 1


def test_the_text_part_says_what_the_html_says(renderer_of: Build) -> None:
    fixture = json.dumps({"name": "Ann", "url": "https://x.example/1"})
    html = '<p>{{ name }}</p><a href="{{ url|url }}">Reset it</a>'
    files = {"fixtures/typical.json": fixture, "en.txt": "Hello {{ name }}<br>&nbsp;"}
    renderer = renderer_of(html, toml="text = 'authored'", files=files)
    assert said(renderer) == [
        "warning: t/en.txt: with typical: the text part holds HTML: <br>",
        "warning: t/en.txt: with typical: the text part lacks the link of 'Reset it'",
    ]
    assert list(plain_text("<p>x</p>", " \n")) == ["the text part is empty"]
