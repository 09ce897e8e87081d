"""Templates as others write them: the fast way is right, or it is not taken.

``styles/`` holds mails in the ways of public collections, in words of our own: starter
kits, compilers from column languages, hybrid layouts, grid frameworks, and templates that
look at their own output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.traffic import Mix
from mailgate.model.address import Address
from mailgate.render import Catalogue, Renderer, Template
from mailgate.render.inline import inline
from mailgate.render.proof import same_document
from mailgate.render.sandbox import produce

STYLES = Renderer(Catalogue.load([Path(__file__).parent / "styles"]))
NAMES = ["capturing", "compiled_columns", "framework_grid", "hybrid", "transactional"]
#: What looks at its own output goes through premailer whole, each time.
WHOLE = {"capturing"}


def template(name: str) -> Template:
    found = STYLES.catalogue.get(name)
    assert isinstance(found, Template), found
    return found


@pytest.mark.parametrize("name", NAMES)
def test_it_equals_what_premailer_makes_of_the_whole(name: str) -> None:
    found = template(name)
    for data in found.fixtures.values():
        variant = found.variant("en")
        context = found.context(data, variant, Address("sender@example.com", "Example"), None)
        whole = inline("".join(produce(variant.html, context, None)))
        assert same_document(STYLES.preview(name, data).html, whole)
        assert STYLES.prove(name, data) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_fast_way_is_taken_where_it_can_be(name: str, letter: Any) -> None:
    renderer = Renderer(STYLES.catalogue)
    for number in range(3):
        data = {**template(name).fixtures["typical"], "name": f"Reader {number}"}
        renderer.render(letter(template=name, data=data))
    stats = renderer.stats()
    expected = (0, 0, 3) if name in WHOLE else (2, 1, 0)
    assert (stats.fast, stats.made, stats.full) == expected
    assert stats.differing == 0


def test_all_of_them_load() -> None:
    assert STYLES.catalogue.names() == NAMES


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6), coins=st.booleans())
def test_random_mail_of_every_built_in_template(
    built_in: Catalogue, seed: int, coins: bool
) -> None:
    """Any data that a schema allows: optional blocks, lists, hostile values, languages."""
    renderer = Renderer(built_in)
    for sent in Mix(built_in, seed, coins=coins).messages(2):
        assert renderer.prove(sent.template, sent.data, sent.locale) == []
