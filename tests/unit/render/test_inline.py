"""premailer's traps, one test each, and what a mail needs of inlining."""

from __future__ import annotations

import builtins
import io
import logging
import threading
from typing import Any

import pytest

from mailgate.render.inline import MAX_HTML, InlineError, inline


def page(body: str, css: str = "") -> str:
    style = f"<style>{css}</style>" if css else ""
    return f"<!DOCTYPE html><html><head>{style}</head><body>{body}</body></html>"


def test_rules_become_style_attributes_and_the_block_goes() -> None:
    out = inline(page('<p class="a">x</p>', "p { color: red } .a { margin: 0 }"))
    assert '<p class="a" style="color:red; margin:0">x</p>' in out
    assert "<style" not in out


def test_a_style_attribute_like_a_selector_breaks_no_later_mail() -> None:
    """premailer's three caches share their keys; after style="b" a selector b was a list."""
    inline(page('<b style="b">x</b>', "i { color: red }"))
    inline(page('<p style="p">x</p>', "p { color: red }"))
    assert 'style="color:red"' in inline(page("<b>x</b>", "b { color: red }"))


@pytest.mark.parametrize(
    "css",
    [
        '@import url("http://127.0.0.1:9/a.css"); p { color: red }',
        '@import "file:///etc/passwd"; p { color: red }',
        "@import url(//127.0.0.1:9/a.css); p { color: red }",
        "p { background: url(http://127.0.0.1:9/a.png) }",
        '@font-face { src: url("file:///etc/passwd") }',
    ],
)
def test_no_socket_and_no_file_is_opened(
    css: str, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    inline(page("<p>warm</p>", "p { margin: 0 }"))
    opened: list[Any] = []
    true_open = builtins.open

    def watched(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(file)
        return true_open(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", watched)
    monkeypatch.setattr(io, "open", watched)
    inline(page('<p>x</p><link rel="stylesheet" href="http://127.0.0.1:9/b.css">', css))
    assert opened == []


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE html SYSTEM "http://127.0.0.1:9/x.dtd">',
    ],
)
def test_no_entity_and_no_dtd_is_fetched(doctype: str, no_network: None) -> None:
    with open("/etc/hostname", encoding="utf-8") as file:
        host = file.read().strip()
    out = inline(f"{doctype}<html><head></head><body><p>&x;</p></body></html>")
    assert f"<p>{host}" not in out


def test_important_stays_in_kept_rules_and_leaks_into_no_attribute() -> None:
    kept = "@media (max-width: 600px) { .a { color: red !important } }"
    out = inline(
        "<!DOCTYPE html><html><head>"
        f'<style data-premailer="ignore">{kept}</style>'
        "<style>td { background-color: #abc !important; width: 10px !important }</style>"
        "</head><body><table><tr><td>x</td></tr></table></body></html>"
    )
    assert kept in out
    assert "data-premailer" not in out
    assert 'bgcolor="#aabbcc"' in out
    assert 'width="10"' in out


def test_the_attributes_of_the_author_win_over_those_from_styles() -> None:
    out = inline(page('<table width="600"><tr><td>x</td></tr></table>', "table { width: 100% }"))
    assert '<table width="600" style="width:100%">' in out


@pytest.mark.parametrize(
    ("body", "css"),
    [
        ("<table><tr><td>x</td></tr></table>", "table { text-align: center; height: auto }"),
        ("<p>x</p>", "p { width: 50%; height: 10px; background-color: #abcdef }"),
        ("<table><tr><td>x</td></tr></table>", "td { background-color: rgba(0, 0, 0, 0.5) }"),
        ("<table><tr><td>x</td></tr></table>", "td { width: calc(100% - 1px) }"),
        ("<p>x</p>", "p { text-align: start }"),
    ],
)
def test_no_attribute_is_written_where_html_has_none(body: str, css: str) -> None:
    out = inline(page(body, css))
    for name in ("align", "width", "height", "bgcolor"):
        assert f" {name}=" not in out


def test_nothing_is_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    inline(page("<p>x</p>", "p { colour: red; color: zzz; mso-x: 1 } q:::x { } @foo; } {"))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_conditional_comments_survive() -> None:
    opening, closing = "<table><tr><td>", "</td></tr></table>"
    body = f"<!--[if mso]>{opening}<![endif]--><p>x</p><!--[if mso]>{closing}<![endif]-->"
    assert body in inline(page(body, "q { margin: 0 }"))


def test_many_templates_in_turn_stay_warm() -> None:
    import time

    pages = [
        page(
            "".join(f'<p class="c{i}_{j}">x</p>' for j in range(60)),
            "".join(f".c{i}_{j} {{ color: #{i}{j % 10}0; margin: {j}px }}" for j in range(60)),
        )
        for i in range(7)
    ]
    for document in pages:
        inline(document)
    started = time.perf_counter()
    for document in pages:
        inline(document)
    warm = time.perf_counter() - started
    from mailgate.render.inline import _parse_pairs, _parse_sheet

    started = time.perf_counter()
    for document in pages:
        sheet = document.partition("<style>")[2].partition("</style>")[0]
        _parse_sheet(sheet, validate=False)
        _parse_pairs("color: red", validate=False)
    cold_parsing = time.perf_counter() - started
    assert warm < cold_parsing


def test_threads_give_what_one_thread_gives() -> None:
    documents = [
        page(f'<p class="c{i}">x{i}</p>', f".c{i} {{ color: #{i:06d} }}") for i in range(40)
    ]
    expected = [inline(document) for document in documents]
    found: list[list[str]] = []

    def work() -> None:
        found.append([inline(document) for document in documents])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize("html", ["", "   ", "<!-- -->"])
def test_what_is_no_document_is_an_error_with_a_reason(html: str) -> None:
    with pytest.raises(InlineError):
        inline(html)


def test_a_document_too_large_is_refused_before_any_work() -> None:
    with pytest.raises(InlineError, match="more than"):
        inline(page("x" * MAX_HTML))
