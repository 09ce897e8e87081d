"""What a template cannot reach and how much it cannot make."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from mailgate.render import Broken, Renderer, RenderError

Build = Callable[..., Renderer]


def rendered(renderer: Renderer, data: dict[str, Any]) -> str:
    return renderer.preview("t", data).html


ESCAPES = [
    "{{ name.__class__ }}",
    "{{ name['__class__'] }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ items.__class__ }}",
    "{{ items.append(1) }}",
    "{{ name.format(1) }}",
    "{{ '{0.__class__}'.format(name) }}",
    "{{ name.upper() }}",
    "{{ 'a'.center(1000000000) }}",
    "{{ extra.pop('a') }}",
    "{{ extra.clear() }}",
    "{{ extra.get('a') }}",
    "{{ extra.__init__ }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{% macro m() %}x{% endmacro %}{{ m.__call__ }}",
    "{% macro m() %}x{% endmacro %}{{ m.name }}",
    "{% for i in items %}{{ loop.__class__ }}{% endfor %}",
    "{% for i in items %}{{ loop._iterable }}{% endfor %}",
    "{% import '_components/kit.html' as kit %}{{ kit.__name__ }}",
    "{% import '_components/kit.html' as kit %}{{ kit._body_stream }}",
    "{{ theme.color.__class__ }}",
    "{{ items|map('attr', '__class__')|join }}",
    "{{ items|map(attribute='__class__')|join }}",
    "{{ name() }}",
    "{{ items() }}",
    "{{ 'a' * 1000000000 }}",
    "{{ items * 1000000000 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ name + name }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_no_way_out_and_no_way_to_make_much_of_little(renderer_of: Build, source: str) -> None:
    renderer = renderer_of(source)
    if isinstance(renderer.catalogue.get("t"), Broken):
        return
    started = time.monotonic()
    with pytest.raises(RenderError) as raised:
        rendered(renderer, {"name": "Ann", "items": [1], "extra": {"a": 1}})
    assert raised.value.kind == "template_broken"
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("name", ["range", "lipsum", "dict", "cycler", "joiner", "namespace"])
def test_there_are_no_global_functions(renderer_of: Build, name: str) -> None:
    found = renderer_of("{{ " + name + "(3) }}").catalogue.get("t")
    assert isinstance(found, Broken)
    assert f"{name} is not in the schema" in found.error


@pytest.mark.parametrize(
    ("value", "what"),
    [(None, "null"), (True, "true or false"), ([1], "a list"), ({"a": 1}, "an object")],
)
def test_a_value_without_a_text_of_its_own_is_not_guessed(
    renderer_of: Build, value: Any, what: str
) -> None:
    renderer = renderer_of("{{ extra }}")
    with pytest.raises(RenderError, match=what):
        rendered(renderer, {"name": "Ann", "extra": value})


@pytest.mark.parametrize(
    "constant", ["{}|unique", "[1]|map('upper')", "[1]", "{'a': 1}", "none", "true"]
)
def test_a_constant_without_a_text_of_its_own_is_not_printed_either(
    renderer_of: Build, constant: str
) -> None:
    with pytest.raises(RenderError, match="a template prints"):
        rendered(renderer_of("<p>{{ " + constant + " }}</p>"), {"name": "Ann"})


def test_an_optional_variable_that_is_absent_fails_and_is_named(renderer_of: Build) -> None:
    renderer = renderer_of("<p>{{ url }}</p>")
    with pytest.raises(RenderError, match="'url' is undefined") as raised:
        rendered(renderer, {"name": "Ann"})
    assert raised.value.held


def test_a_mapping_key_named_like_a_method_is_the_key(renderer_of: Build) -> None:
    renderer = renderer_of(
        "<p>{{ extra.items }}{% for k, v in extra.values.items() %}{{ k }}={{ v }}{% endfor %}</p>"
    )
    html = rendered(renderer, {"name": "Ann", "extra": {"items": 3, "values": {"a": 1}}})
    assert "<p>3a=1</p>" in html


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in items %}{% for b in items %}{% for c in items %}x"
        "{% endfor %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
        "{{ m(40) }}",
        "{% for a in items|map('upper') %}{% for b in items %}{% for c in items %}"
        "{{ c }}{% endfor %}{% endfor %}{% endfor %}",
    ],
)
def test_work_is_bounded(renderer_of: Build, source: str) -> None:
    renderer = renderer_of(source)
    started = time.monotonic()
    with pytest.raises(RenderError) as raised:
        rendered(renderer, {"name": "Ann", "items": ["x"] * 200})
    assert raised.value.kind == "budget"
    assert time.monotonic() - started < 5


def test_doubling_by_joining_is_bounded(renderer_of: Build) -> None:
    doubled = "".join("{% set a = a ~ a %}" for _ in range(60))
    renderer = renderer_of("{% set a = name ~ name %}" + doubled + "{{ a }}")
    with pytest.raises(RenderError) as raised:
        rendered(renderer, {"name": "Ann"})
    assert raised.value.kind == "budget"


def test_doubling_by_macros_is_bounded(renderer_of: Build) -> None:
    nested = "m(" * 40 + "name" + ")" * 40
    renderer = renderer_of("{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{{ " + nested + " }}")
    with pytest.raises(RenderError) as raised:
        rendered(renderer, {"name": "A" * 1000})
    assert raised.value.kind in ("budget", "too_large")


def test_output_larger_than_the_manifest_allows_is_refused(renderer_of: Build) -> None:
    renderer = renderer_of(
        "{% for i in items %}<p>0123456789</p>{% endfor %}", toml="max_bytes = 1000"
    )
    with pytest.raises(RenderError) as raised:
        rendered(renderer, {"name": "Ann", "items": [1] * 100})
    assert raised.value.kind == "too_large"


def test_long_values_are_refused_before_they_are_encoded(renderer_of: Build) -> None:
    renderer = renderer_of("<p>{{ name }}</p>", toml="max_bytes = 1000")
    rendered(renderer, {"name": "Ann"})
    with pytest.raises(RenderError) as raised:
        rendered(renderer, {"name": "x" * 5000})
    assert raised.value.kind == "too_large"


def test_a_line_end_in_the_subject_is_refused(renderer_of: Build) -> None:
    renderer = renderer_of("<p>x</p>")
    for end in ("\n", "\r", "\r\n"):
        with pytest.raises(RenderError, match="more than one line") as raised:
            renderer.preview("t", {"name": f"Ann{end}Bcc: eve@example.com"})
        assert raised.value.kind == "data_invalid"


def test_text_and_subject_are_not_escaped_and_html_is(renderer_of: Build) -> None:
    renderer = renderer_of(
        "<p>{{ name }}</p>", toml="text = 'authored'", files={"en.txt": "Dear {{ name }},"}
    )
    parts = renderer.preview("t", {"name": "<O'Neil> & Co"})
    assert parts.subject == "Hi <O'Neil> & Co"
    assert parts.text == "Dear <O'Neil> & Co,\n"
    assert "<p>&lt;O'Neil&gt; &amp; Co</p>" in parts.html


def test_template_syntax_in_data_stays_text(renderer_of: Build) -> None:
    html = rendered(renderer_of("<p>{{ name }}</p>"), {"name": "{{ 7*7 }}{% if x %}{# c #}"})
    assert "{{ 7*7 }}{% if x %}{# c #}" in html


def test_control_characters_become_visible_marks(renderer_of: Build) -> None:
    html = rendered(
        renderer_of("<p>{{ name }}</p>", subject="x"), {"name": "a\x00b\x1bc\r\nd\ud800\ufffe"}
    )
    assert "<p>a\ufffdb\ufffdc\nd\ufffd\ufffd</p>" in html
