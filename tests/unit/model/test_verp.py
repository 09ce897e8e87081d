"""Envelope senders that name their recipient, and what reads them again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.model.address import wire_form
from mailgate.model.verp import LONGEST, bounce_address, recipient_of

IDS = st.integers(0, 2**63 - 1)


@given(IDS, st.binary(min_size=1, max_size=32))
def test_what_is_written_is_read_again_by_who_has_the_key(number: int, key: bytes) -> None:
    address = bounce_address("bounces@example.com", number, key)
    assert wire_form(address) == address
    assert recipient_of(address, key) == number
    assert recipient_of(address.upper(), key) == number
    assert recipient_of(address, key + b"x") is None


def test_it_fits_the_longest_local_part() -> None:
    address = bounce_address("b" * LONGEST + "@example.com", 2**63 - 1, b"k")
    assert len(address.partition("@")[0]) == 64
    assert wire_form(address) == address


def test_a_sender_that_has_a_detail_already_keeps_it() -> None:
    address = bounce_address("bounces+shop@example.com", 7, b"k")
    assert address.startswith("bounces+shop+")
    assert recipient_of(address, b"k") == 7


@given(IDS, IDS)
def test_nobody_makes_one_of_another(number: int, other: int) -> None:
    address = bounce_address("bounces@example.com", number, b"k")
    forged = bounce_address("bounces@example.com", other, b"guess")
    if other != number:
        signature = address.partition("@")[0][-13:]
        moved = f"{forged.partition('@')[0][:-13]}{signature}@example.com"
        assert recipient_of(moved, b"k") is None
    assert recipient_of(forged, b"k") is None
    assert recipient_of(address.replace("example.com", "example.net"), b"k") is None
    assert recipient_of(address.replace("bounces", "others"), b"k") is None


@pytest.mark.parametrize(
    "address",
    ["bounces@example.com", "bounces+x@example.com", "", "@", "bounces+" + "u" * 26 + "@x", "+"],
)
def test_other_addresses_name_nobody(address: str) -> None:
    assert recipient_of(address, b"k") is None
