"""What a template's author may not write, each with the words that refuse it."""

from __future__ import annotations

from typing import Any

import pytest

from mailgate.render import Broken, Catalogue, Template

REFUSED = {
    "unquoted attribute": ("<td class={{ name }}>", "outside quotes"),
    "attribute name": ("<td {{ name }}>", "outside quotes"),
    "bare href": ('<a href="{{ url }}">x</a>', "must end in |url"),
    "filter on one branch": ('<a href="{{ url|url if name else url }}">', "must end in |url"),
    "filter on one operand": ("<a href=\"{{ 'x' ~ url|url }}\">", "must end in |url"),
    "url after text": ('<a href="javascript:{{ url|url }}">', "must end in |url"),
    "part without a base": ('<a href="{{ url|urlencode }}">', "must end in |url"),
    "part after a bad scheme": ('<a href="data:{{ url|urlencode }}">', "must end in |url"),
    "bare src": ("<img src='{{ url }}'>", "must end in |url"),
    "href of a condition": (
        '<a href="{% if name %}{{ url }}{% else %}https://x.example{% endif %}">',
        "must end in |url",
    ),
    "href in a conditional comment": (
        '<!--[if mso]><a href="{{ url }}">x</a><![endif]-->',
        "must end in |url",
    ),
    "literal javascript": ('<a href=" JavaScript:alert(1)">', "scheme of href is refused"),
    "value in a style attribute": ('<p style="color: {{ name }}">', "theme tokens"),
    "value in a style sheet": ("<style>p { color: {{ name }} }</style>", "theme tokens"),
    "import": ("<style>@import url(http://x.example/a.css);</style>", "must not fetch"),
    "link": ('<link rel="stylesheet" href="https://x.example/a.css">', "<link> fetches"),
    "script": ("<script>1</script>", "<script> does not work in mail"),
    "form": ("<form>", "<form> does not work in mail"),
    "frame": ('<iframe src="https://x.example">', "<iframe> does not work in mail"),
    "handler": ('<p onclick="x">', "runs no scripts"),
    "open tag": ('<a href="https://x.example"', "is not closed"),
    "safe": ("{{ name|safe }}", "No filter named 'safe'"),
    "attr filter": ("{{ name|attr('x') }}", "No filter named 'attr'"),
    "amplifying filter": ("{{ name|center(1000000000) }}", "No filter named 'center'"),
    "escape switched off": ("{% autoescape false %}{{ name }}{% endautoescape %}", "escaping"),
    "computed include": ("{% include name %}", "as plain text"),
    "list of includes": ("{% include ['a', 'b'] %}", "as plain text"),
    "recursive loop": ("{% for x in items recursive %}{% endfor %}", "recursive loops"),
    "unknown variable": ("{{ nmae }}", "nmae is not in the schema"),
    "unknown in a condition": ("{% if nmae %}{% endif %}", "nmae is not in the schema"),
    "unknown theme token": ('<p style="color: {{ theme.color.brnad }}">', "no color.brnad"),
    "syntax": ("{% if name %}", "Unexpected end of template"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_at_load_with_the_file_and_the_rule(make_root: Any, case: str) -> None:
    source, said = REFUSED[case]
    found = Catalogue.load([make_root(source)]).get("t")
    assert isinstance(found, Broken)
    assert said in found.error
    assert found.error.startswith("t/en.html")


TAKEN = {
    "url": '<a href="{{ url|url }}">x</a>',
    "both branches": "<a href=\"{{ url|url if name else 'https://x.example'|url }}\">x</a>",
    "part of a link": '<a href="https://x.de/?q={{ name|urlencode }}&amp;r={{ url|urlencode }}">',
    "part after a url": '<a href="{{ url|url }}?q={{ name|urlencode }}">x</a>',
    "quoted attribute": "<td title='{{ name }}'>",
    "condition in a tag": '<td{% if name %} class="x"{% endif %}>',
    "theme in a style": '<p style="color: {{ theme.color.brand }}">x</p>',
    "less than": "<p>1 < 2 {{ name }}</p>",
    "loop": "{% for i in items %}{{ loop.index }} {{ i }}{% endfor %}",
    "mapping": "{% for k, v in extra.items() %}{{ k }}{{ v }}{% endfor %}",
    "macro": "{% macro m(x) %}<b>{{ x }}</b>{% endmacro %}{{ m(name) }}",
    "set": "{% set greeting = 'Hi ' ~ name %}{{ greeting }}",
    "raw": "{% raw %}{{ not jinja }}{% endraw %}",
    "stray quote in text": "<p>\"{{ name }}\" 'x'</p>",
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(make_root: Any, case: str) -> None:
    found = Catalogue.load([make_root(TAKEN[case])]).get("t")
    assert isinstance(found, Template), found


@pytest.mark.parametrize(
    ("source", "captures"),
    [
        ("{{ name|upper }}", False),
        ("{% set x %}{{ name }}{% endset %}{{ x|length }}", True),
        ("{% filter upper %}{{ name }}{% endfilter %}", True),
        ("{% macro m() %}{{ name }}{% endmacro %}{{ m()|upper }}", True),
        ("{% macro m() %}x{% endmacro %}{% if m() == 'x' %}y{% endif %}", True),
        ("{% macro m() %}x{% endmacro %}{{ m() if name else m() }}", False),
        ("{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}", False),
        ("{% for k in extra.keys() %}{{ k }}{% endfor %}", False),
    ],
)
def test_a_template_that_reads_its_own_output_is_known(
    make_root: Any, source: str, captures: bool
) -> None:
    found = Catalogue.load([make_root(source)]).get("t")
    assert isinstance(found, Template), found
    assert found.variant("en").capturing is captures
