"""Amounts, dates, times, numbers and sizes, as each language writes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.render.errors import RenderError
from mailgate.render.sandbox import Sandbox, produce

SANDBOX = Sandbox({}, html=False, theme={})


def written(expression: str, locale: str = "en", **data: Any) -> str:
    template = SANDBOX.from_string("{{ " + expression + " }}")
    return "".join(produce(template, {"locale": locale, **data}, None))


@pytest.mark.parametrize(
    ("expression", "locale", "expected"),
    [
        ('"1234.5"|money("EUR")', "en", "€1,234.50"),
        ('"1234.5"|money("EUR")', "de", "1.234,50\u00a0€"),
        ('"1234.5"|money("EUR")', "ar", "\u200f1,234.50\u00a0€"),
        ('"88"|money("CNY")', "zh-CN", "¥88.00"),
        ('"-3"|money("JPY")', "en", "-¥3"),
        ('"0.0025"|money("USD")', "en", "$0.0025"),
        ('1234|money("USD")', "en", "$1,234.00"),
        ('0.30000000000000004|money("USD")', "en", "$0.30"),
        ('"12.5"|money("JPY")', "en", "¥12.5"),
        ('"999999999999999.99"|money("EUR")', "en", "€999,999,999,999,999.99"),
        ('"1"|money("EUR", locale="de")', "en", "1,00\u00a0€"),
        ('"2026-05-14"|date', "en", "May 14, 2026"),
        ('"2026-05-14"|date("full")', "en", "Thursday, May 14, 2026"),
        ('"2026-05-14"|date("full")', "zh-CN", "2026年5月14日星期四"),
        ('"2026-05-14"|date', "ar", "14 مايو 2026"),
        ('"2026-05-14"|date', "pt-BR", "14 de maio de 2026"),
        ('"2026-05-14T23:30:00Z"|date("long", "Asia/Shanghai")', "en", "May 15, 2026"),
        ('"2026-05-14T23:30:00-11:00"|date', "en", "May 14, 2026"),
        ('"0001-01-01"|date', "en", "January 1, 1"),
        ('"2026-05-14T15:30:00Z"|time("Europe/Oslo")', "en-GB", "17:30"),
        ('"2016-12-31T23:59:60z"|time', "en-GB", "23:59"),
        ('"2026-05-14t15:30:00.123456789z"|time', "zh-CN", "15:30"),
        ('"2026-05-14T15:30:00Z"|datetime', "en-GB", "14 May 2026, 15:30 UTC"),
        ('"2026-05-14T15:30:00+05:30"|datetime', "en-GB", "14 May 2026, 15:30 UTC+05:30"),
        ('"2026-05-14T15:30:00-00:30"|datetime', "en-GB", "14 May 2026, 15:30 UTC-00:30"),
        (
            '"2026-05-14T15:30:00Z"|datetime("long", "Europe/Oslo")',
            "en-GB",
            "14 May 2026, 17:30 CEST",
        ),
        (
            '"2026-05-14T15:30:00Z"|datetime("full", "Asia/Shanghai")',
            "zh-CN",
            "2026年5月14日星期四 23:30 UTC+08:00",
        ),
        ("1234567.5|number(2)", "en", "1,234,567.50"),
        ("1234567.5|number(2)", "de", "1.234.567,50"),
        ("1234567|number", "en", "1,234,567"),
        ('1234.5|number(1, ".", ",")', "en", "1.234,5"),
        ("(-0.5)|number(1)", "en", "-0.5"),
        ("4200000|filesize", "en", "4.2\u00a0MB"),
        ("4200000|filesize", "de", "4,2\u00a0MB"),
        ("4200000|filesize", "zh-CN", "4.2\u00a0MB"),
        ("0|filesize", "en", "0\u00a0byte"),
        ("99999|filesize", "en", "100\u00a0kB"),
        ("9999999999999999|filesize", "en", "10,000\u00a0TB"),
    ],
)
def test_each_language_has_its_way(expression: str, locale: str, expected: str) -> None:
    narrow = written(expression, locale).replace("\u202f", " ")
    assert narrow == expected


@pytest.mark.parametrize(
    "expression",
    [
        'x|money("EUR")',
        'true|money("EUR")',
        '"1e9"|money("EUR")',
        '"1,5"|money("EUR")',
        '" 1"|money("EUR")',
        '"1234567890123456"|money("EUR")',
        '1e300|money("EUR")',
        '"1"|money("eur")',
        '"1"|money("ABC")',
        '"1"|money(7)',
        '"2026-02-30"|date',
        '"2026-5-4"|date',
        '"2026-W20-4"|date',
        "20260514|date",
        '"2026-05-14"|time',
        '"2026-05-14T15:30:00"|datetime',
        '"2026-05-14T25:30:00Z"|datetime',
        '"2026-05-14T15:30:00+25:00"|datetime',
        '"0001-01-01T00:00:00+14:00"|date("long", "UTC")',
        '"9999-12-31T23:59:59Z"|time("Asia/Tokyo")',
        '"2026-05-14T15:30:00Z"|time("Mars/Base")',
        '"2026-05-14T15:30:00Z"|time("../../etc/passwd")',
        '"2026-05-14T15:30:00Z"|time("/etc/localtime")',
        '"2026-05-14T15:30:00Z"|time(7)',
        "true|number",
        '"7"|number',
        "none|number",
        '"7"|filesize',
        "(-1)|filesize",
        "true|filesize",
    ],
)
def test_data_that_is_no_such_thing_is_refused(expression: str) -> None:
    with pytest.raises(RenderError) as raised:
        written(expression, x=["1"])
    assert raised.value.kind == "data_invalid"


@pytest.mark.parametrize(
    "expression",
    ['"2026-05-14"|date("EEEE")', "1|number(13)", '"1"|money("EUR", locale="tlh")'],
)
def test_an_author_who_asks_for_what_there_is_not_hears_so(expression: str) -> None:
    with pytest.raises(RenderError) as raised:
        written(expression)
    assert raised.value.kind == "template_broken"


def test_a_macro_that_does_not_see_the_language_says_so() -> None:
    sources = {"m": '{% macro price(x, l=none) %}{{ x|money("EUR", l) }}{% endmacro %}'}
    sandbox = Sandbox(sources, html=False, theme={})

    def page(call: str) -> str:
        template = sandbox.from_string('{% import "m" as m %}{{ ' + call + " }}")
        return "".join(produce(template, {"locale": "en"}, None))

    assert page('m.price("1", "de")') == "1,00\u00a0€"
    with pytest.raises(RenderError, match="locale="):
        page('m.price("1")')


@given(st.text(max_size=40), st.sampled_from(["money('EUR')", "date", "time", "datetime"]))
def test_no_text_does_worse_than_be_refused(text: str, name: str) -> None:
    kind = ""
    try:
        written(f"x|{name}", x=text)
    except RenderError as error:
        kind = error.kind
    assert kind in ("", "data_invalid")
