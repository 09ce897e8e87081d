"""A filled skeleton is the document that premailer makes of the full rendering."""

from __future__ import annotations

import json
import quopri
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailgate.render import Catalogue, Renderer, RenderError, Template, encode
from mailgate.render.printing import TOKEN_PREFIX, token
from mailgate.render.skeleton import Cache, Plan, Sensitive, Whole, compile_skeleton, odd_ones
from tests.unit.render.house import BUILT_IN, RENDERER

Build = Callable[..., Renderer]

FIXTURES = [
    (name, locale, key)
    for name in BUILT_IN.names()
    if isinstance(template := BUILT_IN.get(name), Template)
    for locale in template.locales
    for key in template.fixtures
]

HOSTILE = [
    "<b>bold</b>",
    "\"quoted\" 'single'",
    "a & b &amp; c &#65; &nbsp;",
    "</td></tr></table>",
    "--> <!-- --!> <![endif]-->",
    "</style><script>alert(1)</script>",
    "javascript:alert(1)",
    "line\nline\r\nline\rline",
    "\ttab\x0bvt\x0cff\x00nul\x1b",
    " leading and trailing ",
    "   ",
    "",
    "\u00a0",
    "\u200b\ufeff\u2028\u0085",
    "\ud800 lone",
    "مرحبا — שלום",
    "😀👩‍👩‍👧‍👦🇳🇴",
    "e\u0301 \u1100\u1161",
    "=3D =?utf-8?q?x?= =\r\n",
    ".",
    "..\n.\n",
    "{{ 7*7 }} {% raw %} {# #}",
    f"{TOKEN_PREFIX}00000z",
    f"{TOKEN_PREFIX}99999z",
    TOKEN_PREFIX,
    "x" * 3000,
    "<" * 500,
    "é" * 500,
    "]]>",
    "&lt;&gt;&quot;",
    "\\ ` $ % ~ ^ | { }",
    "https://example.com/",
    "0",
]
text_values = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=60),
    st.text(alphabet="<>&\"'=\n\r\t -!a;#/\u00a0", max_size=40),
)


@pytest.mark.parametrize(("name", "locale", "key"), FIXTURES)
def test_every_fixture_of_every_template(name: str, locale: str, key: str) -> None:
    template = BUILT_IN.get(name)
    assert isinstance(template, Template)
    assert not template.variant(locale).capturing
    assert RENDERER.prove(name, template.fixtures[key], locale) == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_hostile_data_in_a_template_with_every_kind_of_place(data: Any) -> None:
    """Titles, lists, attributes, links, an image, several lines, a preheader."""
    words = text_values.filter(bool)
    posts = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {"title": words.map(lambda w: w[:200] or "x"), "url": urls},
                optional={
                    "summary": words.map(lambda w: w[:600]),
                    "author": words.map(lambda w: w[:120]),
                    "image": st.fixed_dictionaries(
                        {"url": urls, "alt": text_values.map(lambda w: w[:200])}
                    ),
                },
            ),
            min_size=1,
            max_size=3,
        )
    )
    given_ = {"posts": posts, "title": "t", "intro": data.draw(words)[:2000]}
    assert RENDERER.prove("weekly_digest", _json(given_)) == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=text_values.filter(bool),
    title=text_values.filter(bool),
    locale=st.sampled_from(["en", "zh-CN"]),
)
def test_hostile_data_in_prose(body: str, title: str, locale: str) -> None:
    one_line = "".join(c if c.isprintable() else " " for c in title)[:200] or "x"
    assert RENDERER.prove("notice", _json({"body": body, "title": one_line}), locale) == []


urls = st.one_of(
    st.sampled_from(
        ["https://example.com/", "https://example.com/?a=1&b=\"<'>", "http://ü.example/ü"]
    ),
    st.text(alphabet="ab/?&=\"<>' ü%", max_size=30).map(lambda t: "https://example.com/" + t),
)


def _json(value: Any) -> Any:
    """What a producer can say: no lone surrogates come through JSON in UTF-8."""
    return json.loads(json.dumps(value).encode("utf-8", "replace"))


PLACES = """<!DOCTYPE html><html lang="en"><head><title>{{ name }}</title>
<style>.warm { color: red } td[title] { color: blue } #one { margin: 0 }</style></head><body>
<p class="plain" title="{{ extra }}">{{ name }}, {{ extra }}</p>
<p><a href="{{ url|url }}" aria-label="{{ extra }}">{{ extra }}</a>
<a href="{{ url|url }}">{{ url }}</a></p>
<img src="{{ url|url }}" alt="{{ extra }}">
<!-- {{ extra }} --><!--[if mso]><a href="{{ url|url }}" title="{{ extra }}">x</a><![endif]-->
<ul>{% for item in items %}<li>{{ item }}</li>{% endfor %}</ul>
<table><tr><th>a</th><th>b</th></tr>
{% for item in items %}<tr><td>{{ item }}</td><td>{{ name }}</td></tr>{% endfor %}</table>
<p>{{ extra }}<br>{{ name }} <b>{{ extra }}</b>{{ extra }}</p>
</body></html>"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    root = tmp_path_factory.mktemp("root")
    (root / "t").mkdir()
    (root / "t/template.toml").write_text("")
    (root / "t/en.html").write_text(PLACES)
    (root / "t/en.subject").write_text("x")
    names = ("name", "url", "items", "extra")
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {} for name in names},
    }
    (root / "t/context.schema.json").write_text(json.dumps(schema))
    return Renderer(Catalogue.load([root]))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=text_values, extra=text_values, url=urls, items=st.lists(text_values, max_size=3))
def test_hostile_data_in_every_place(
    places: Renderer, name: str, extra: str, url: str, items: list[str]
) -> None:
    data = {"name": name, "extra": extra, "url": url, "items": items}
    assert places.prove("t", data) == []


@pytest.mark.parametrize("extra", HOSTILE, ids=range(len(HOSTILE)))
def test_each_hostile_value_in_every_place(places: Renderer, extra: str) -> None:
    data = {"name": extra, "extra": extra, "url": "https://example.com/?a&b", "items": [extra, "x"]}
    assert places.prove("t", data) == []


@pytest.mark.parametrize("extra", HOSTILE, ids=range(len(HOSTILE)))
def test_the_wire_form_decodes_to_the_document(places: Renderer, extra: str) -> None:
    found = places.catalogue.get("t")
    assert isinstance(found, Template)
    from mailgate.model.address import Address

    data = {"name": extra, "extra": extra, "url": "https://example.com/?a=b&c", "items": [extra]}
    variant = found.variant(None)
    context = found.context(data, variant, Address("a@example.com"), None)
    values: list[str] = []
    plan = places._plan(found, variant, context, values)
    if extra.startswith(TOKEN_PREFIX) and extra.endswith("z"):
        # The title is selected by a rule, so this value becomes part of the
        # skeleton, where it cannot be told from our own tokens: rendered in full.
        assert plan is None
        return
    assert plan is not None
    for wire, plain in (
        (plan.html_wire(values, odd_ones(values)), plan.html(values)),
        (plan.derived_wire(values, odd_ones(values)), plan.text(values)),
    ):
        assert all(len(line) <= 76 for line in wire.split("\r\n"))
        assert "\n" not in wire.replace("\r\n", "")
        assert wire.isascii()
        decoded = quopri.decodestring(wire.encode().replace(b"\r\n", b"\n")).decode()
        assert decoded.rstrip("\n") == plain.rstrip("\n")


@pytest.mark.parametrize(
    "html",
    [
        '<style>.a { color: red } .b { margin: 0 }</style><p class="{{ extra }}">{{ name }}</p>',
        '<style>#a { color: red }</style><p id="{{ extra }}">{{ name }}</p>',
        '<style>p[title="a"] { color: red }</style><p title="{{ extra }}">{{ name }}</p>',
        "<style>td { color: red }</style><table>{{ extra }}<tr>{{ name }}<td>x</td></tr></table>",
        '<style>td { width: 5px }</style><table><tr><td width="{{ extra }}">x</td></tr></table>',
        "<style>p { margin: 0 }</style>{{ extra }}<p>{{ name }}</p>{{ extra }}",
        "<pre>{{ extra }}</pre><textarea>{{ name }}</textarea>",
        "<p{% if extra == 'a' %} class='a'{% endif %}>{{ name }}</p><style>.a {top: 0}</style>",
    ],
)
@pytest.mark.parametrize("extra", ["a", "b", "a b", "\n x", "<td>"])
def test_a_value_that_can_change_the_document_is_part_of_the_shape(
    renderer_of: Build, html: str, extra: str
) -> None:
    renderer = renderer_of(html)
    for name in ("Ann", "Bob"):
        assert renderer.prove("t", {"name": name, "extra": extra}) == []
        assert renderer.prove("t", {"name": name, "extra": "a"}) == []


def test_values_in_text_need_one_shape_and_values_in_a_class_one_each(renderer_of: Build) -> None:
    renderer = renderer_of('<style>.a { margin: 0 }</style><p class="{{ extra }}">{{ name }}</p>')
    for number in range(10):
        renderer.preview("t", {"name": f"n{number}", "extra": f"c{number % 2}"})
    assert renderer.cache.misses == 1 + 2
    assert len(renderer.cache) == 3


def test_the_number_of_items_is_part_of_the_shape(renderer_of: Build) -> None:
    renderer = renderer_of("<ul>{% for i in items %}<li>{{ i }}</li>{% endfor %}</ul>")
    for number in (1, 2, 3, 1, 2, 3):
        renderer.preview("t", {"name": "x", "items": ["a"] * number})
    assert (renderer.cache.misses, renderer.cache.hits) == (3, 3)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("{% set x %}{{ name }}{% endset %}<p>{{ x|length }} {{ x }}</p>", "<p>3 Ann</p>"),
        ("<p>{% filter upper %}{{ name }}{% endfilter %}</p>", "<p>ANN</p>"),
        (
            "{% macro m() %}{{ name }}{% endmacro %}<p>{{ m()|truncate(2, true, '', 0) }}</p>",
            "<p>An</p>",
        ),
        ("{% set x %}{{ name }}{% endset %}<p>{% if x == 'Ann' %}yes{% endif %}</p>", "<p>yes</p>"),
    ],
)
def test_templates_that_read_their_output_are_rendered_in_full(
    renderer_of: Build, html: str, expected: str
) -> None:
    renderer = renderer_of(html)
    assert expected in renderer.preview("t", {"name": "Ann"}).html
    assert len(renderer.cache) == 0


def test_a_value_that_is_never_shown_is_rendered_in_full(renderer_of: Build) -> None:
    renderer = renderer_of(
        "{% macro m(x) %}{{ x }}{% endmacro %}<p>{% if m(name) %}shown{% endif %}</p>"
    )
    assert "shown" in renderer.preview("t", {"name": "Ann"}).html


def test_a_link_that_only_the_document_shows_is_still_checked(renderer_of: Build) -> None:
    """Reading top to bottom sees the title's attribute here; the parser sees a link."""
    html = '<a {% if extra %}href{% else %}title{% endif %}="{{ name }}">x</a>'
    renderer = renderer_of(html)
    for data in (
        {"name": "javascript:alert(1)", "extra": 1},
        {"name": "https://x.example", "extra": 1},
    ):
        with pytest.raises(RenderError, match=r"\|url"):
            renderer.preview("t", data)


def test_a_capturing_template_shows_no_bad_link_either(renderer_of: Build) -> None:
    html = (
        "{% set q %}x{% endset %}"
        '<a {% if extra %}href{% else %}title{% endif %}="{{ name }}">{{ q }}</a>'
    )
    with pytest.raises(RenderError, match=r"\|url"):
        renderer_of(html).preview("t", {"name": "javascript:alert(1)", "extra": 1})


def test_tokens_are_classified_by_where_they_land() -> None:
    page = "<html><head><style>{css}</style></head><body>{body}</body></html>"

    def compiled(body: str, css: str = "") -> Any:
        return compile_skeleton(page.format(css=css, body=body), 1)

    assert isinstance(compiled(f"<p>{token(0)}</p>"), Plan)
    assert compiled(f'<p class="x {token(0)}">x</p>') == Sensitive((0,))
    assert compiled(f"<p {token(0)}=x>x</p>") == Sensitive((0,))
    assert compiled(f"<{token(0)}>x</p>") == Sensitive((0,))
    assert compiled("<p>x</p>", f"p {{ color: {token(0)} }}") == Sensitive((0,))
    assert compiled(f'<p lang="{token(0)}">x</p>', "[lang=en] { margin: 0 }") == Sensitive((0,))
    assert isinstance(compiled(f"<p>{token(0)} {token(0)}</p>"), Whole)
    assert isinstance(compiled("<p>x</p>"), Whole)


@pytest.mark.parametrize("odd", ["", "é", "<&>", "x" * 90, 'a"b', "a=b", "a  b"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_values_and_links_that_no_value_is_in(count: int, odd: str) -> None:
    values = [f"{n}{odd}" for n in range(count)]
    tokens = " and ".join(map(str, map(token, range(count))))
    plan = compile_skeleton(
        f'<p>{tokens}</p><p><a href="mailto:us@example.com">us@example.com</a></p><!-- x -->', count
    )
    assert isinstance(plan, Plan)
    assert plan.text(values).endswith("us@example.com")
    odd_at = odd_ones(values)
    assert encode.says(plan.html_wire(values, odd_at), plan.html(values))
    assert encode.says(plan.derived_wire(values, odd_at), plan.text(values))


@pytest.mark.parametrize("name", ["Ann", "Zoé", "a=41", "x" * 480])
def test_what_the_text_says_twice_is_encoded_twice(
    renderer_of: Build, letter: Any, name: str
) -> None:
    """The derived text tells of a table within a table, and then again of the inner one."""
    inner = "<table><tr><td>{{ name }}</td></tr></table>"
    renderer = renderer_of(f"<table><tr><th>Who</th><td>{inner}</td></tr></table>{{{{ extra }}}}")
    data = {"name": name, "extra": "x"}
    assert renderer.prove("t", data) == []
    sent = renderer.render(letter(template="t", data=data))
    wire = sent.partition(b"text/plain")[2].partition(b"text/html")[0]
    said = quopri.decodestring(wire.replace(b"\r\n", b"\n")).decode()
    assert said.count(name) == 2


def test_a_link_within_a_link_that_no_value_is_in(renderer_of: Build, letter: Any) -> None:
    renderer = renderer_of(
        "<p>{{ name }}{{ extra }}</p>"
        '<a href="https://x.test/"><span>see <a href="https://y.test/">there</a></span></a>'
    )
    data = {"name": "Ann", "extra": "x"}
    assert renderer.prove("t", data) == []
    assert b"y.test" in renderer.render(letter(template="t", data=data))


def test_the_cache_is_bounded_by_bytes_and_entries() -> None:
    cache = Cache(10_000, max_entries=5)
    for number in range(50):
        cache.put(number, Whole(""), 100)
    assert len(cache) == 5
    assert cache.get(49) is not None
    assert cache.get(44) is None
    cache.put("large", Whole(""), 9_700)
    assert cache.bytes <= 10_000
    assert cache.get("large") is not None
    cache.put("too large", Whole(""), 20_000)
    assert cache.get("too large") is None
    for _ in range(3):
        cache.put("same", Whole(""), 100)
    assert cache.bytes == sum(weight for _, weight in cache._kept.values())


def test_shapes_share_their_pieces() -> None:
    def plan(count: int) -> Plan:
        # Texts of their own, as each compilation makes them.
        pieces = ("".join(["<html>", "x" * 10_000]), *["".join(["<li>", "y" * 1000])] * count)
        return Plan((), pieces, pieces, (), (), None)

    cache = Cache(10**6, max_entries=50)
    cache.put(("a", "b" * 5000), plan(1), 0)
    one = cache.bytes
    assert 16_000 < one < 18_500
    for count in range(2, 51):
        cache.put(("a", "".join(["b"] * 5000), str(count)), plan(count), 0)
    assert len(cache) == 50
    assert cache.bytes < 3 * one + 50 * 500
    for number in range(60):
        cache.put(number, Whole(""), 0)
    assert cache.bytes == 200 * 50
    assert cache._pieces == {}


def test_the_least_recently_used_shape_goes_first() -> None:
    cache = Cache(10**6, max_entries=2)
    cache.put("a", Whole(""), 1)
    cache.put("b", Whole(""), 1)
    cache.get("a")
    cache.put("c", Whole(""), 1)
    assert cache.get("a") is not None
    assert cache.get("b") is None


def test_a_cache_too_small_for_anything_changes_no_output() -> None:
    none = Renderer(BUILT_IN, cache_bytes=1)
    template = BUILT_IN.get("welcome")
    assert isinstance(template, Template)
    data = template.fixtures["typical"]
    assert none.preview("welcome", data) == RENDERER.preview("welcome", data)
    assert len(none.cache) == 0


def test_threads_share_a_renderer(letter: Any) -> None:
    renderer = Renderer(BUILT_IN, cache_bytes=300_000)
    letters = [
        letter(
            template="notice", data={"title": f"Title {i}", "body": f"One {i}\n\nTwo" * (i % 5 + 1)}
        )
        for i in range(60)
    ]
    expected = [Renderer(BUILT_IN).render(each) for each in letters[:5]]
    found: list[list[bytes]] = []

    def work() -> None:
        found.append([renderer.render(each) for each in letters])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(each == found[0] for each in found)
    assert found[0][:5] == expected
    assert renderer.stats().differing == 0
