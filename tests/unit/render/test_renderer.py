"""The front: letters in, bytes or one clear error out."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest

from mailgate.model.address import Address
from mailgate.model.message import Letter, Unsubscribe
from mailgate.model.value import replace
from mailgate.render import Catalogue, Renderer, RenderError, Template
from mailgate.render.inline import MAX_HTML
from mailgate.render.renderer import MAX_BODY
from tests.unit.render.house import RENDERER

Make = Callable[..., Letter]
Build = Callable[..., Renderer]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return RENDERER


def parts(raw: bytes) -> tuple[str, str, str]:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    html, text = message.get_body(("html",)), message.get_body(("plain",))
    assert html is not None
    assert text is not None
    bodies = [str(part.get_content()).replace("\r\n", "\n") for part in (html, text)]
    return message["Subject"], bodies[0], bodies[1]


def kind_of(renderer: Renderer, letter: Letter) -> str:
    with pytest.raises(RenderError) as first:
        renderer.render(letter)
    with pytest.raises(RenderError) as second:
        renderer.render(letter)
    assert (first.value.kind, first.value.message) == (second.value.kind, second.value.message)
    return first.value.kind


def test_a_mail_carries_what_the_preview_shows(renderer: Renderer, letter: Make) -> None:
    for name in renderer.catalogue.names():
        template = renderer.catalogue.get(name)
        assert isinstance(template, Template)
        for locale in template.locales:
            for key in ("typical", "hostile"):
                data = template.fixtures[key]
                sent = letter(
                    template=name,
                    data=data,
                    locale=locale,
                    sender=Address("sender@example.com", "Example"),
                )
                subject, html, text = parts(renderer.render(sent))
                seen = renderer.preview(name, data, locale)
                assert subject == " ".join(seen.subject.split()) or subject == seen.subject
                assert html.rstrip("\n") == seen.html.rstrip("\n")
                assert text.rstrip("\n") == seen.text.rstrip("\n")


def test_hit_miss_and_another_renderer_give_the_same_bytes(
    built_in: Catalogue, letter: Make
) -> None:
    sent = letter(template="notice", data={"title": 'A "title"', "body": "é <b> &\n\nx\ny"})
    one = Renderer(built_in)
    first = one.render(sent)
    assert one.render(sent) == first
    assert one.cache.hits == 1
    assert Renderer(built_in, cache_bytes=1).render(sent) == first


def test_a_capturing_template_renders_to_equal_bytes(renderer_of: Build, letter: Make) -> None:
    html = "{% set x %}{{ name }}{% endset %}<p>{{ x }}</p>"
    renderer = renderer_of(html)
    sent = letter(template="t", data={"name": "Ann"})
    assert renderer.render(sent) == renderer.render(sent)
    assert "<p>Ann</p>" in parts(renderer.render(sent))[1]


def test_the_subject_alone_is_the_mails(renderer: Renderer, letter: Make) -> None:
    template = renderer.catalogue.get("activity_digest")
    assert isinstance(template, Template)
    for locale in template.locales:
        data = template.fixtures["max"]
        one = letter(template="activity_digest", data=data, locale=locale)
        assert parts(renderer.render(one))[0] == renderer.subject(one)
    own = letter(subject="Hello", text="there")
    assert renderer.subject(own) == "Hello"
    with pytest.raises(RenderError):
        renderer.subject(letter(template="no_such", data={}))


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        ("en", "and 12 more"),
        ("zh-CN", "另有 12 条"),
        ("ar", "بالإضافة إلى 12 عنصرًا آخر"),
    ],
)
def test_what_a_digest_leaves_out_is_counted_in_each_language(
    renderer: Renderer, locale: str, words: str
) -> None:
    for name, items in (
        ("activity_digest", {"events": [{"text": "wrote"}]}),
        ("weekly_digest", {"posts": [{"title": "A", "url": "https://example.com"}]}),
    ):
        assert words not in renderer.preview(name, items, locale).text
        assert words in renderer.preview(name, {**items, "more": 12}, locale).text


def test_the_sender_stands_in_for_the_product(renderer: Renderer, letter: Make) -> None:
    sent = letter(template="welcome", data={"name": "Ann"})
    assert parts(renderer.render(sent))[0] == "Welcome to Example, Ann"
    bare = replace(sent, sender=Address("news@shop.example"))
    assert parts(renderer.render(bare))[0] == "Welcome to shop.example, Ann"
    named = replace(sent, data={"name": "Ann", "product": {"name": "Shop"}})
    assert parts(renderer.render(named))[0] == "Welcome to Shop, Ann"


def test_the_footer_offers_to_unsubscribe_where_the_message_does(
    renderer: Renderer, letter: Make
) -> None:
    sent = letter(template="notice", data={"title": "T", "body": "B"})
    url = "https://example.com/u?a=1&b=2"
    assert "Unsubscribe" not in parts(renderer.render(sent))[1]
    _, html, text = parts(renderer.render(replace(sent, unsubscribe=Unsubscribe(url))))
    assert 'href="https://example.com/u?a=1&amp;b=2"' in html
    assert f"Unsubscribe ({url})" in text


def test_each_recipient_of_a_shared_message_may_share_the_letter(
    renderer: Renderer, letter: Make
) -> None:
    sent = letter(to=(Address("a@example.org"), Address("b@example.org")))
    assert renderer.render(sent) == renderer.render(replace(sent))


def test_unknown_template(renderer: Renderer, letter: Make) -> None:
    assert kind_of(renderer, letter(template="../etc/passwd", data={})) == "template_missing"


def test_broken_template_waits_for_its_author(renderer_of: Build, letter: Make) -> None:
    renderer = renderer_of("{{ nobody }}")
    sent = letter(template="t", data={"name": "Ann"})
    assert kind_of(renderer, sent) == "template_broken"
    with pytest.raises(RenderError) as raised:
        renderer.render(sent)
    assert raised.value.held


@pytest.mark.parametrize("data", [None, {}, {"title": "x"}, {"title": "x", "body": "y", "z": 1}])
def test_data_that_does_not_fit(renderer: Renderer, letter: Make, data: Any) -> None:
    assert kind_of(renderer, letter(template="notice", data=data)) == "data_invalid"


def test_data_errors_name_fields_and_never_values(renderer: Renderer, letter: Make) -> None:
    secret = "hunter2"
    sent = letter(
        template="notice", data={"title": [secret], "body": {"x": secret}, "button": secret}
    )
    with pytest.raises(RenderError) as raised:
        renderer.render(sent)
    assert secret not in raised.value.message
    assert "data.title" in raised.value.message


def test_a_bad_link_is_the_producers_fault(renderer_of: Build, letter: Make) -> None:
    renderer = renderer_of('<a href="{{ url|url }}">x</a>')
    sent = letter(template="t", data={"name": "Ann", "url": "javascript:alert(1)"})
    assert kind_of(renderer, sent) == "data_invalid"


def test_a_letter_of_its_own_words(renderer: Renderer, letter: Make) -> None:
    sent = letter(text="Plain", html="<p>Rich &amp; <b>bold</b></p>")
    assert parts(renderer.render(sent)) == ("Hello", "<p>Rich &amp; <b>bold</b></p>\n", "Plain\n")


def test_html_without_a_style_block_is_left_alone(renderer: Renderer, letter: Make) -> None:
    html = "<div class=x>\n<p style='color:red'>unclosed <td> &copy; 日本"
    assert parts(renderer.render(letter(text=None, html=html)))[1].rstrip("\n") == html


def test_html_with_a_style_block_is_inlined_and_its_text_derived(
    renderer: Renderer, letter: Make
) -> None:
    html = "<html><head><style>p { color: red }</style></head><body><p>a</p><p>b</p></body></html>"
    _, written, text = parts(renderer.render(letter(text=None, html=html)))
    assert '<p style="color:red">a</p>' in written
    assert text == "a\n\nb\n"


@pytest.mark.parametrize(
    "html",
    [
        '<?xml version="1.0" encoding="utf-16"?><html><head><style>p{color:red}</style></head>'
        "<body><p>é中</p></body></html>",
        '<html><head><meta charset="gbk"><style>p{color:red}</style></head>'
        "<body><p>é中</p></body></html>",
    ],
)
def test_a_declared_encoding_does_no_harm(renderer: Renderer, letter: Make, html: str) -> None:
    _, written, text = parts(renderer.render(letter(text=None, html=html)))
    assert '<p style="color:red">é中</p>' in written
    assert text == "é中\n"


@pytest.mark.parametrize(
    "html", ["", "<", "<!-- -->", "\0", "<p>\0\x01", "<" * 5000, "<div>" * 3000, "]]>"]
)
def test_no_html_of_a_producer_breaks_the_renderer(
    renderer: Renderer, letter: Make, html: str
) -> None:
    for given in (html, f"<style>p {{ color: red }}</style>{html}"):
        try:
            raw = renderer.render(letter(text=None, html=given))
        except RenderError as error:
            kind = error.kind
        else:
            kind = None
            assert b"\0" not in raw
            assert raw.count(b"\n") == raw.count(b"\r\n")
        assert kind in (None, "html_invalid")


def test_letters_too_large(renderer: Renderer, letter: Make) -> None:
    assert kind_of(renderer, letter(text="x" * (MAX_BODY + 1))) == "too_large"
    styled = "<style>p { margin: 0 }</style>" + "x" * MAX_HTML
    assert kind_of(renderer, letter(html=styled)) == "html_invalid"


def test_a_letter_without_words(renderer: Renderer, letter: Make) -> None:
    assert kind_of(renderer, letter(text=None)) == "data_invalid"
    assert kind_of(renderer, letter(subject=None)) == "data_invalid"


def test_a_bad_header_is_named(renderer: Renderer, letter: Make) -> None:
    sent = letter(headers=(("Bcc", "x@y.example"),))
    assert kind_of(renderer, sent) == "header_invalid"
    with pytest.raises(RenderError, match=r"headers\.Bcc"):
        renderer.render(sent)


def test_a_locale_never_mixes_languages(renderer_of: Build) -> None:
    renderer = renderer_of(
        "<p>html en</p>",
        subject="subject en",
        toml="text = 'authored'",
        files={
            "en.txt": "text en",
            "de.html": "<p>html de</p>",
            "de.subject": "subject de",
            "de.txt": "text de",
        },
    )
    for wanted, found in (("de-AT", "de"), ("fr", "en"), (None, "en")):
        seen = renderer.preview("t", {"name": "Ann"}, wanted)
        assert seen.subject.endswith(found)
        assert f"html {found}" in seen.html
        assert seen.text == f"text {found}\n"


def test_right_to_left_languages_turn_the_page(renderer_of: Build) -> None:
    html = "{% extends '_layouts/base.html' %}"
    renderer = renderer_of(html, files={"ar.html": html, "ar.subject": "x"})
    assert '<html lang="ar" dir="rtl">' in renderer.preview("t", {"name": "Ann"}, "ar").html
    assert '<html lang="en" dir="ltr">' in renderer.preview("t", {"name": "Ann"}, "en").html


def test_data_is_not_changed_by_rendering(renderer: Renderer, letter: Make) -> None:
    data = {"title": "T", "body": "B", "button": {"text": "x", "url": "https://example.com/"}}
    before = json.dumps(data)
    renderer.render(letter(template="notice", data=data))
    assert json.dumps(data) == before
