"""Where an error of the catalogue points to."""

from __future__ import annotations

import pytest

from mailgate.render.errors import Broken
from mailgate.render.findings import Finding, broken


@pytest.mark.parametrize(
    ("error", "finding"),
    [
        (
            "welcome/en.html line 3: unexpected '}'",
            Finding("welcome/en.html", 3, "unexpected '}'", "error"),
        ),
        ("template.toml: unknown key x", Finding("template.toml", 0, "unknown key x", "error")),
        (
            'en.html line 1: no end of block\n  File "parcel/en.html", line 1',
            Finding("en.html", 1, "no end of block", "error"),
        ),
        (
            "_layouts/base.html: there is no such file",
            Finding("_layouts/base.html", 0, "there is no such file", "error"),
        ),
        ("there is no template.toml", Finding("welcome", 0, "there is no template.toml", "error")),
    ],
)
def test_file_and_line_are_taken_from_the_words(error, finding):
    assert broken(Broken("welcome", error)) == finding
