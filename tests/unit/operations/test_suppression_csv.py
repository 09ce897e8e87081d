"""Suppressions as CSV: what is written is read back, and no cell is a formula."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.journal.suppression_list import Listed
from mailgate.journal.suppressions import Suppression
from mailgate.operations.suppressions import (
    COLUMNS,
    BadLine,
    NotSuppressible,
    read_csv,
    row_of,
    subject,
)

NOW = 1_800_000_000_000
DEFAULTS = Suppression("", "imported", "import")


def read(text: str, defaults: Suppression = DEFAULTS) -> list[Suppression | BadLine]:
    return list(read_csv(io.StringIO(text, newline=""), NOW, defaults))


def written(*entries: Suppression) -> str:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(COLUMNS)
    rows.writerows(row_of(Listed(n, entry, NOW)) for n, entry in enumerate(entries))
    return out.getvalue()


LOCALS = st.text("abz019'=+-_", min_size=1, max_size=12)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40).map(
    lambda text: text.strip(" ")
)
ENTRIES = st.builds(
    Suppression,
    address=LOCALS.map(lambda local: f"{local}@example.org") | st.just("example.org"),
    reason=WORDS.map(lambda text: text or "r"),
    source=st.sampled_from(["bounce", "manual", "import", "unsubscribe"]),
    producer=st.sampled_from(["", "shop"]),
    category=st.sampled_from(["", "news"]),
    evidence=WORDS,
    expires_at=st.none() | st.integers(NOW + 1, NOW + 10**12),
)


@given(st.lists(ENTRIES, max_size=5))
def test_what_is_exported_is_imported_alike_and_holds_no_formula(
    entries: list[Suppression],
) -> None:
    text = written(*entries)
    assert read(text) == entries
    for row in csv.reader(io.StringIO(text, newline="")):
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_a_plain_list_of_addresses_needs_no_header() -> None:
    assert read("Ann@Example.org\n\n  bob@example.org \r\n") == [
        Suppression("ann@example.org", "imported", "import"),
        Suppression("bob@example.org", "imported", "import"),
    ]


def test_another_houses_columns_are_read_by_name() -> None:
    text = "created,Email,Reason\n2020,ann@example.org,550 no\n2021,@example.com,\n"
    assert read(text) == [
        Suppression("ann@example.org", "550 no", "import"),
        Suppression("example.com", "imported", "import"),
    ]


def test_what_a_line_leaves_out_comes_from_the_command() -> None:
    defaults = Suppression("", "left", "unsubscribe", "shop", "news", expires_at=NOW + 5)
    assert read("ann@example.org", defaults) == [
        Suppression("ann@example.org", "left", "unsubscribe", "shop", "news", "", NOW + 5)
    ]


@pytest.mark.parametrize(
    ("line", "field", "rule"),
    [
        ("ann", "address", "must be one address or a domain"),
        ("a@example.org b@example.org", "address", "must be one address or a domain"),
        ("Ann <a@example.org>", "address", "must be one address or a domain"),
        ("a@example.org,No Such", "producer", "must be a name"),
        ("a@example.org,,No Such", "category", "must be a name"),
        (f"a@example.org,,,{'x' * 201}", "reason", "at most 200"),
        ("a@example.org,,,,tomorrow", "expires_at", "must be a time"),
        ("a@example.org,,,,2020-01-01", "expires_at", "has passed"),
        ("\udcffann@example.org", "", "is not UTF-8"),
        (f"{'x' * 200_000}", "", "is no CSV"),
    ],
)
def test_a_wrong_line_is_told_by_number_and_rule_and_the_others_are_read(
    line: str, field: str, rule: str
) -> None:
    header = "address,producer,category,reason,expires_at"
    first, bad, last = read(f"{header}\nfirst@example.org\n{line}\nlast@example.org\n")
    assert isinstance(first, Suppression)
    assert isinstance(last, Suppression)
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.field) == (3, field)
    assert rule in bad.rule
    assert str(bad).startswith("line 3: ")


@given(st.text(max_size=200))
def test_any_text_is_entries_or_bad_lines(text: str) -> None:
    for one in read(text):
        assert isinstance(one, Suppression | BadLine)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("Ann@EXAMPLE.org", "ann@example.org"),
        ("example.org", "example.org"),
        ("@Example.org", "example.org"),
        ("*@example.org", "example.org"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
    ],
)
def test_an_address_is_known_by_its_folded_wire_form_and_a_domain_by_its_name(
    text: str, known: str
) -> None:
    assert subject(text) == known


@pytest.mark.parametrize("text", ["", "@", "ann@", "localhost", "a b@example.org", "*"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(NotSuppressible):
        subject(text)
