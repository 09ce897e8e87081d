"""The fast way is compared with the full rendering while mail goes out, and given up at once."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mailgate.render import Catalogue, Renderer
from mailgate.render.skeleton import Plan

Letters = Callable[..., Any]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def notice(letter: Letters, number: int = 0, locale: str = "en") -> Any:
    data = {"title": f"Number {number}", "body": "One"}
    return letter(template="notice", data=data, locale=locale)


def test_a_template_is_sampled_once_a_minute_in_each_language(
    built_in: Catalogue, letter: Letters, clock: Clock
) -> None:
    renderer = Renderer(built_in, clock=clock)
    for number in range(20):
        renderer.render(notice(letter, number))
        renderer.render(notice(letter, number, "ar"))
    stats = renderer.stats()
    assert (stats.made, stats.fast, stats.full) == (2, 38, 0)
    assert (stats.sampled, stats.differing) == (2, 0)
    clock.now += 59
    renderer.render(notice(letter))
    assert renderer.stats().sampled == 2
    clock.now += 1
    for number in range(5):
        renderer.render(notice(letter, number))
    assert renderer.stats().sampled == 3
    assert stats.shapes == 2
    assert 0 < stats.bytes < 200_000


def shown(raw: bytes) -> str:
    mail: Any = email.message_from_bytes(raw, policy=email.policy.default)
    return str(mail.get_body(("html",)).get_content()).strip()


def spoil(renderer: Renderer) -> None:
    """The kept skeletons become wrong, as a bug would make them."""
    for key, (entry, weight) in renderer.cache._kept.items():
        assert isinstance(entry, Plan)
        broken = tuple(piece.replace("<p", "<div") for piece in entry.pieces)
        spoilt = replace(entry, pieces=broken, wire=broken)
        renderer.cache._kept[key] = (spoilt, weight)


def test_a_difference_is_counted_said_and_never_sent_again(
    built_in: Catalogue, letter: Letters, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    renderer = Renderer(built_in, clock=clock)
    right = shown(renderer.render(notice(letter)))
    renderer.render(notice(letter))
    renderer.render(notice(letter, locale="ar"))
    spoil(renderer)
    clock.now += 60
    assert shown(renderer.render(notice(letter))) == right
    assert renderer.stats().differing == 1
    assert "template notice/en.html: the skeleton differs" in caplog.text
    # From now on in full, without a further comparison; the other language goes on.
    full, sampled = renderer.stats().full, renderer.stats().sampled
    assert shown(renderer.render(notice(letter))) == right
    assert renderer.stats().full == full + 1
    assert renderer.stats().sampled == sampled
    renderer.adopt(built_in)
    renderer.cache._kept.clear()
    assert shown(renderer.render(notice(letter))) == right
    assert renderer.stats().full == full + 1
