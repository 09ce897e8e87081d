"""The text part that is made from HTML reads like one that a person wrote."""

from __future__ import annotations

import pytest

from mailgate.render.text import derive, finish


def words(html: str) -> str:
    return finish(derive(f"<html><body>{html}</body></html>"))


CASES = {
    "paragraphs": ("<p>One\n  two</p><p>Three</p>", "One two\n\nThree"),
    "line break": ("<p>One<br>Two<br><br>Three</p>", "One\nTwo\n\nThree"),
    "heading": ("<h1>Title</h1><p>Text</p>", "Title\n\nText"),
    "inline": ("<p>a <b>b</b>c <i> d</i></p>", "a bc d"),
    "link": (
        '<p>See <a href="https://x.example/a">here</a>.</p>',
        "See here (https://x.example/a).",
    ),
    "link that says itself": (
        '<a href="https://x.example/">https://x.example/</a>',
        "https://x.example/",
    ),
    "mail link": ('<a href="mailto:a@x.example">a@x.example</a>', "a@x.example"),
    "phone link": ('<a href="tel:+123">+123</a>', "+123"),
    "anchor": ('<a href="#x">top</a>', "top"),
    "link without words": (
        '<a href="https://x.example"><img src="y" alt=""></a>',
        "https://x.example",
    ),
    "image": ('<p><img alt="A boat"> at sea <img alt=""></p>', "A boat at sea"),
    "list": ("<p>x</p><ul><li>a</li><li><p>b</p></li></ul>y", "x\n\n- a\n- b\n\ny"),
    "numbered": ("<ol><li>a</li><li>b</li></ol>", "1. a\n2. b"),
    "nested list": ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "- a\n  - b\n- c"),
    "rule": ("<p>a</p><hr><p>b</p>", "a\n\n" + "-" * 40 + "\n\nb"),
    "hidden": ('<p>a</p><div style="color:red; display: none">b</div><p hidden>c</p>', "a"),
    "preheader": ('<div style="max-height:0;overflow:hidden">b</div><p>a</p>', "a"),
    "omitted": ('<p>a</p><p data-text="omit">b</p>', "a"),
    "lead": ('<table><tr><td data-text="lead">1</td><td>First</td></tr></table>', "1. First"),
    "style and script": ("<style>p {}</style><script>x</script><p>a</p>", "a"),
    "comments": ("<!-- a --><p>b<!-- c --></p>", "b"),
    "layout table": (
        '<table role="presentation"><tr><td><p>a</p></td><td>b</td></tr>'
        "<tr><td>c</td></tr></table>",
        "a\n\nb\nc",
    ),
    "data table": (
        "<table><tr><th>Item</th><th>Sum</th></tr><tr><td>A <b>b</b></td><td>1</td></tr></table>",
        "Item | Sum\nA b | 1",
    ),
    "label and value": (
        "<table><tr><th>When</th><td>Now<br>or never</td></tr></table>",
        "When: Now or never",
    ),
    "soft hyphens": ("<p>Donau\u00addampf\u200bschiff</p>", "Donaudampfschiff"),
    "entities": ("<p>a &lt; b &amp;&nbsp;c</p>", "a < b &\u00a0c"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_text_of(case: str) -> None:
    html, expected = CASES[case]
    assert words(html) == expected


def test_text_of_no_document_at_all() -> None:
    assert derive("  ") == ""
    assert derive("<!-- x -->") == ""
