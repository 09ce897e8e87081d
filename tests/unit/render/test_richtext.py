"""HTML in data: what is left of it, and where it may stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from mailgate.render import Broken, Catalogue, Renderer
from mailgate.render.errors import RenderError
from mailgate.render.richtext import MAX_CHARACTERS, MAX_DEPTH, TAGS, richtext


def left(html: str) -> str:
    return richtext(html).removeprefix('<div class="rich" dir="auto">').removesuffix("</div>")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("<p>Hi <b>you</b></p>", "<p>Hi <b>you</b></p>"),
        ("plain & simple", "plain &amp; simple"),
        ('<p onclick="x" style="color:red" class="c" id="i">a</p>', "<p>a</p>"),
        ("<script>alert(1)</script><style>p{}</style>a", "a"),
        ('<a href="https://x.example/?a=1&amp;b=2">x</a>',) * 2,
        ('<a href="mailto:a@x.ex" target="_blank">x</a>', '<a href="mailto:a@x.ex">x</a>'),
        ('<a href="javascript:alert(1)">x</a>', "x"),
        ('<a href="JaVa&#10;Script:alert(1)">x</a>', "x"),
        ('<a href="http://x.example">x</a>', "x"),
        ('<a href="/relative">x</a>', "x"),
        ('<a href="https://x.example/ü &quot;">x</a>', '<a href="https://x.example/%C3%BC%20%22">x</a>'),
        ('<img src="https://spy.example/1.gif">a', "a"),
        ("</div></td></tr></table>a", "a"),
        ("<table><tr><td>a</td></tr></table>", "a"),
        ("<!-- a -->b<!--[if mso]>c<![endif]-->", "b"),
        ("<ul><li>a<li>b</ul>", "<ul><li>a</li><li>b</li></ul>"),
        ("a\r\nb\x00\x1bc", "a\nb\ufffd\ufffdc"),
        ("<form><input><button>a</button></form>", "a"),
        ("<svg><a href='https://x.example'>a</a></svg>", ""),
    ],
)  # fmt: skip
def test_what_is_left(given: str, expected: str) -> None:
    assert left(given) == expected


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (7, "data_invalid"),
        (None, "data_invalid"),
        ("\ud800", "data_invalid"),
        ("<blockquote>" * (MAX_DEPTH + 1), "data_invalid"),
        ("x" * (MAX_CHARACTERS + 1), "too_large"),
    ],
)
def test_what_is_refused(given: Any, kind: str) -> None:
    with pytest.raises(RenderError) as raised:
        richtext(given)
    assert raised.value.kind == kind


PIECES = """
<p> </p> <a_href= 'https://x.example/ " > <b </div> <!-- --> &lt; &#60; <style> </style> <svg>
javascript: _onx=y_ <math> a <td> </table> <pre> <br> ]]> <![CDATA[ <title> \x00
"""


@given(st.lists(st.sampled_from(PIECES.split()), max_size=25))
def test_nothing_else_comes_through(pieces: list[str]) -> None:
    try:
        html = richtext("".join(pieces).replace("_", " "))
    except RenderError:
        return
    (box,) = etree.fromstring(f"<html><body>{html}</body></html>", etree.HTMLParser())[0]
    assert box.get("class") == "rich"
    for node in box.iterdescendants():
        assert node.tag in TAGS
        assert set(node.attrib) <= {"href"}
        if node.tag == "a":
            assert node.get("href").startswith(("https:", "mailto:"))


def test_it_is_styled_and_every_message_stays_right(renderer_of: Callable[..., Renderer]) -> None:
    renderer = renderer_of(
        "<html><head><style>.rich p { color: #123456 } .rich a { color: #654321 }</style></head>"
        "<body><h1>{{ name }}</h1>{{ extra|richtext }}<p>{{ name }}</p></body></html>"
    )
    one = '<p>Read <a href="https://x.example/">this</a></p>'
    for extra, name in ((one, "A"), (one, "B"), ("</body><p>x", "C"), ("<b>" * 5, "D")):
        data = {"name": name, "extra": extra}
        assert renderer.prove("t", data) == []
        html = renderer.preview("t", data).html
        assert html.count(f">{name}<") == 2
    assert renderer.cache.hits >= 1
    shown = renderer.preview("t", {"name": "A", "extra": one})
    assert '<p style="color:#123456">Read <a href="https://x.example/" style=' in shown.html
    assert "Read this (https://x.example/)" in shown.text


@pytest.mark.parametrize(
    ("html", "rule"),
    [
        ('<p title="{{ name|richtext }}">x</p>', "markup cannot stand in an attribute"),
        ('<a href="{{ name|richtext }}">x</a>', "must end in |url"),
        ("{{ name|richtext|upper }}", "ends a printed expression"),
        ("{% set x = name|richtext %}{{ x }}", "ends a printed expression"),
        ("{% set x %}{{ name|richtext }}{% endset %}{{ x }}", "outside macros"),
        ("{% macro m() %}{{ name|richtext }}{% endmacro %}{{ m() }}", "outside macros"),
        ("{% macro m(x) %}<p>{{ x }}</p>{% endmacro %}{{ m(name|richtext) }}", "ends a printed"),
        ('{% macro m() %}<p title="{{ caller() }}">x</p>{% endmacro %}', "markup cannot stand"),
        ('{% block b %}x{% endblock %}<p title="{{ self.b() }}">x</p>', "markup cannot stand"),
    ],
)
def test_its_markup_cannot_come_to_stand_in_an_attribute(
    make_root: Callable[..., Any], html: str, rule: str
) -> None:
    found = Catalogue.load([make_root(html)]).get("t")
    assert isinstance(found, Broken)
    assert rule in found.error


def test_a_text_part_and_a_subject_take_no_markup(make_root: Callable[..., Any]) -> None:
    found = Catalogue.load([make_root(subject="{{ name|richtext }}")]).get("t")
    assert isinstance(found, Broken)
    assert "|richtext is for HTML only" in found.error
