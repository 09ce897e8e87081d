"""Identifiers: growing, 63 bits, and spelled so that they sort as they were made."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.model.ids import Ids, spell, unspell

NUMBERS = st.integers(0, 2**63 - 1)
T2025 = 1_735_689_600_000


@given(st.lists(st.integers(T2025, T2025 + 10_000), max_size=50), st.floats(0, 0.999999))
def test_each_is_larger_than_the_last_also_when_the_clock_goes_back(
    times: list[int], chance: float
) -> None:
    ids = Ids(lambda: chance)
    made = [ids.take(at) for at in times]
    assert made == sorted(set(made))


def test_a_long_run_in_one_millisecond_stays_increasing_into_the_next() -> None:
    ids = Ids(lambda: 0.999999)
    made = [ids.take(T2025 + 5) for _ in range(5000)] + [ids.take(T2025 + 6)]
    assert made == sorted(set(made))


def test_they_fit_into_63_bits_for_a_century() -> None:
    year_2120 = T2025 + 95 * 366 * 86_400_000
    assert 0 < Ids(random.Random(1).random).take(year_2120) < 2**63


def test_two_processes_in_one_millisecond_hardly_meet() -> None:
    one, two = (Ids(random.Random(seed).random) for seed in (1, 2))
    runs = [{ids.take(T2025 + ms) for ms in range(2000)} for ids in (one, two)]
    assert len(runs[0] & runs[1]) <= 1


def test_every_residue_comes_up() -> None:
    """Workers prefer their own residue of the id: none may be left without."""
    ids = Ids(random.Random(3).random)
    for of in (2, 3, 4, 7):
        counts = [0] * of
        for n in range(1000):
            counts[ids.take(T2025 + n // 10) % of] += 1
        assert min(counts) > 500 / of


@given(NUMBERS)
def test_spelling_goes_both_ways_in_either_case(number: int) -> None:
    text = spell(number)
    assert len(text) == 13
    assert unspell(text) == unspell(text.upper()) == number


@given(NUMBERS, NUMBERS)
def test_spellings_sort_as_the_numbers(one: int, two: int) -> None:
    assert (spell(one) < spell(two)) == (one < two)


def test_letters_that_look_like_digits_are_read_as_these() -> None:
    assert unspell("io1l") == unspell("1011")


@pytest.mark.parametrize(
    "text", ["", "u", "0" * 14, "zzzzzzzzzzzzz", "ab c", "-1", "١", "0\n", "é", "8000000000000"]
)
def test_what_is_no_identifier_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an identifier"):
        unspell(text)


@given(st.text(max_size=15))
def test_no_text_breaks_the_reading(text: str) -> None:
    try:
        number = unspell(text)
    except ValueError:
        return
    assert 0 <= number < 2**63
