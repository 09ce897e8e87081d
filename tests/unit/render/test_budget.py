"""A template that wants too much ends in a clear error, in bounded time and memory."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mailgate.render import Broken, Renderer, RenderError, budget
from mailgate.render.errors import TemplateFault
from mailgate.render.inline import MAX_SELECTORS, InlineError, inline
from mailgate.render.schema import read_schema

Build = Callable[..., Renderer]

#: Processor seconds for loading or rendering one hostile template, whatever it is.
#: The promise is the budget's 2 s and one operation on top; most end in milliseconds.
BOUND = 6.0
MEMORY = 768 << 20


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """An operation that wants gigabytes fails here instead of taking the machine down."""
    kept = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, kept[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, kept)


@pytest.fixture(autouse=True)
def bounded_time(bounded_memory: None) -> Iterator[None]:
    started = time.process_time()
    yield
    assert time.process_time() - started < BOUND


def chain(name: str, levels: int, last: str) -> dict[str, str]:
    """Sources of which each takes in the next one twice."""
    twice = {f"{name}{i}.html": f"{{% include '{name}{i + 1}.html' %}}" * 2 for i in range(levels)}
    return {**twice, f"{name}{levels}.html": last}


ONE = [1] * 10_000
MB = "y " * 500_000

RENDERED: dict[str, tuple[str, dict[str, Any]]] = {
    "nested loops": ("{% for a in items %}{% for b in items %}x{% endfor %}{% endfor %}", {}),
    "a loop over much": ("{% for a in items %}x{% endfor %}", {"items": [1] * 60_000}),
    "endless macros": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", {}),
    "doubling macros": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
        "{{ m(60) }}",
        {},
    ),
    "a large constant in a macro's loop": (
        "{% macro m() %}{% for i in items %}"
        + "y" * 100_000
        + "{% endfor %}{% endmacro %}{{ m() }}",
        {},
    ),
    "a template that includes itself": ("{% include 't/en.html' %}", {}),
    "a block that prints itself": ("{% block b %}{{ self.b() }}{% endblock %}", {}),
    "a separator of a megabyte": ("{{ items|join(extra) }}", {"extra": MB}),
    "one text many times": ("{{ " + "extra ~ " * 5000 + "extra }}", {"extra": MB}),
    "text doubled": ("{% set a = extra ~ extra %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}", {}),
    "numbers squared": (
        "{% set a0 = 99999999 %}"
        + "".join(f"{{% set a{i + 1} = a{i} * a{i} %}}" for i in range(40))
        + "{{ a40 }}",
        {},
    ),
    "numbers divided": ("{{ extra|int(0, 16) // 7 }}", {"extra": "f" * 1_000_000}),
    "a large number in the source": ("{{ 0x" + "f" * 100_000 + " % 7 }}", {}),
    "sorting in a loop": ("{% for i in items %}{% if items|sort %}{% endif %}{% endfor %}", {}),
    "searching in a loop": (
        "{% for i in items %}{% if 'z' in items %}{% endif %}{% endfor %}",
        {"items": ["a"] * 10_000},
    ),
    "filtering in a loop": (
        "{% for i in items %}{% if extra|title == 'x' %}{% endif %}{% endfor %}",
        {"extra": MB},
    ),
    "filters on filters": (
        "{% for i in items %}{% for j in items"
        + "|map('upper')" * 50
        + " %}{% endfor %}{% endfor %}",
        {"items": ["a"] * 5000},
    ),
    "captured output": (
        "{% set q %}x{% endset %}{% for i in items %}{{ extra }}{% endfor %}{{ q }}",
        {"extra": MB},
    ),
    "captured constants": (
        "{% set q %}x{% endset %}{% for i in items %}" + "y" * 100_000 + "{% endfor %}{{ q }}",
        {},
    ),
}


@pytest.mark.parametrize("case", RENDERED)
def test_too_much_work_is_a_clear_error(renderer_of: Build, case: str) -> None:
    html, data = RENDERED[case]
    renderer = renderer_of("<p>{{ name }}</p>" + html)
    found = renderer.catalogue.get("t")
    if isinstance(found, Broken):
        assert "bits" in found.error
        return
    with pytest.raises(RenderError) as raised:
        renderer.preview("t", {"name": "Ann", "items": ONE, "extra": "ab", **data})
    assert raised.value.kind in ("budget", "too_large"), raised.value


def test_a_rendering_that_spent_all_leaves_the_next_one_its_own(renderer_of: Build) -> None:
    renderer = renderer_of("{% for a in items %}{% for b in items %}x{% endfor %}{% endfor %}")
    with pytest.raises(RenderError):
        renderer.preview("t", {"name": "Ann", "items": ONE})
    assert renderer.preview("t", {"name": "Ann", "items": [1] * 200}).html.count("x") == 200 * 200


def test_includes_that_double_are_bounded(renderer_of: Build) -> None:
    renderer = renderer_of(
        "{% include '_components/a0.html' %}", files=chain("_components/a", 40, "x")
    )
    with pytest.raises(RenderError) as raised:
        renderer.preview("t", {"name": "Ann"})
    assert raised.value.kind == "budget"


LOADED: dict[str, tuple[str, dict[str, str], str]] = {
    "loops in loops": (
        "{% for a in items %}" * 25 + "x" + "{% endfor %}" * 25,
        {},
        "too many statically nested blocks",
    ),
    "parentheses": ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", {}, "nested too deeply"),
    "a long sum": ("{{ 1" + " + 1" * 5000 + " }}", {}, "nested too deeply"),
    "a sheet that takes in itself": (
        "<style>{% include '_css/a.css' %}</style>",
        {"_css/a.css": "{% include '_css/a.css' %}"},
        "more than 50 style sheets",
    ),
    "sheets that double": (
        "<style>{% include '_css/a0.css' %}</style>",
        {f"_css/a{i}.css": f"{{% include '_css/a{i + 1}.css' %}}" * 2 for i in range(40)}
        | {"_css/a40.css": "p { color: red }"},
        "more than 50 style sheets",
    ),
    "a large file": ("x" * 300_000, {}, "larger than"),
}


@pytest.mark.parametrize("case", LOADED)
def test_what_cannot_be_bounded_later_is_refused_when_it_is_read(
    renderer_of: Build, case: str
) -> None:
    html, files, rule = LOADED[case]
    found = renderer_of(html, files=files).catalogue.get("t")
    assert isinstance(found, Broken)
    assert rule in found.error


@pytest.mark.parametrize(
    "html",
    [
        "<style></style>" * 15_000,
        "<style>" + "{{ theme.color.page }}" * 2_000 + "</style>",
        '<p title="' + "{{ name }}" * 5_000 + '">',
        "{" * 200_000,
        "<a " * 60_000,
        "<!--" * 60_000,
        "{{ [" + "1," * 5_000 + "]|join('" + "x" * 100_000 + "') }}",
    ],
    ids=["styles", "tokens", "expressions", "braces", "tags", "comments", "constants"],
)
def test_reading_a_source_takes_no_longer_than_it_is(renderer_of: Build, html: str) -> None:
    renderer_of(html)


@pytest.mark.parametrize(
    "html",
    [
        "<style>" + "".join(f".c{i}{{color:red}}" for i in range(MAX_SELECTORS + 1)) + "</style>",
        "<style>"
        + "".join(f".c{i}{{color:red}}" for i in range(500))
        + "</style>"
        + "<p>x</p>" * 3000,
        "<style>p ~ p { color: red }</style>" + "<p>x</p>" * 3000,
    ],
    ids=["selectors", "selectors times elements", "siblings"],
)
def test_what_premailer_would_compute_on_for_long_is_refused(html: str) -> None:
    with pytest.raises(InlineError):
        inline(html)


@pytest.mark.parametrize("html", [" " * 2_000_000, "<?xml" * 300_000, "<style>" * 200_000])
def test_a_producers_own_html_takes_no_longer_than_it_is(
    renderer_of: Build, letter: Any, html: str
) -> None:
    with contextlib.suppress(RenderError):
        renderer_of("x").render(letter(subject="x", html=html, text="x"))


def test_the_clock_ends_what_the_count_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(budget.time, "thread_time", lambda: now)
    budget.begin()
    for _ in range(1000):
        budget.spend(1)
    now += budget.SECONDS + 0.1
    with pytest.raises(RenderError, match="computes for more than 2 seconds"):
        budget.spend(200)
    budget.begin()


def test_an_ordinary_rendering_never_asks_the_clock(
    built_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_clock() -> float:
        raise AssertionError("the clock was asked")

    renderer = Renderer(built_in)
    data = built_in.get("password_reset").fixtures["typical"]
    monkeypatch.setattr(budget.time, "thread_time", no_clock)
    assert renderer.preview("password_reset", data).subject


def schema_with(definitions: dict[str, Any]) -> dict[str, str]:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"a": {"$ref": "#/$defs/x0"}},
        "$defs": definitions,
    }
    return {"context.schema.json": json.dumps(schema)}


def both(name: str) -> dict[str, Any]:
    return {"allOf": [{"$ref": f"#/$defs/{name}"}, {"$ref": f"#/$defs/{name}"}]}


@pytest.mark.parametrize(
    "definitions",
    [
        {**{f"x{i}": both(f"x{i + 1}") for i in range(60)}, "x60": {"type": "string"}},
        {"x0": both("x0")},
        {"x0": both("x1"), "x1": {"properties": {"a": {"$ref": "#/$defs/x0"}}}},
        {"x0": {"$ref": "#"}},
        {"x0": {"$ref": "https://schema.example/x"}},
        {"x0": {"$dynamicRef": "#x"}},
    ],
    ids=["doubling", "itself twice", "in a circle", "the root", "elsewhere", "dynamic"],
)
def test_a_schema_whose_references_multiply_is_refused(definitions: dict[str, Any]) -> None:
    with pytest.raises(TemplateFault):
        read_schema(schema_with(definitions))


def test_a_schema_may_be_a_tree() -> None:
    node = {
        "type": "object",
        "properties": {"c": {"type": "array", "items": {"$ref": "#/$defs/x0"}}},
    }
    _, validator = read_schema(schema_with({"x0": node}))
    assert validator.is_valid({"a": {"c": [{"c": []}]}})
