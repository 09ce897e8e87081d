"""Which items a digest shows, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mailgate.config.digests import Digest
from mailgate.journal.digests import Item
from mailgate.operations.digests import choose, fitting, ordered


def item(number: int, name: str | None = None, expires_at: int | None = None) -> Item:
    return Item(number, number, name, expires_at, False)


def test_of_several_with_one_name_the_latest_counts_in_its_own_place() -> None:
    found = choose([item(1, "a"), item(2, "b"), item(3), item(4, "a"), item(5)], now=0)
    assert [i.recipient_id for i in found.live] == [2, 3, 4, 5]
    assert [i.recipient_id for i in found.replaced] == [1]


def test_what_is_over_is_left_out_and_replaces_nothing() -> None:
    found = choose([item(1, "a"), item(2, "a", expires_at=50), item(3, expires_at=51)], now=50)
    assert [i.recipient_id for i in found.live] == [1, 3]
    assert [i.recipient_id for i in found.expired] == [2]


@pytest.mark.parametrize(
    ("order", "shown"),
    [
        ("newest", [5, 4, 3, 2, 1]),
        ("oldest", [1, 2, 3, 4, 5]),
        ("rank", [3, 5, 1, 2, 4]),
        ("-rank", [2, 1, 5, 3, 4]),
    ],
)
def test_the_order_is_that_of_the_configuration(order: str, shown: list[int]) -> None:
    said: Mapping[int, Any] = {1: 7, 2: "urgent", 3: 1, 4: None, 5: 1.5}
    items = [item(n) for n in range(1, 6)]
    found = ordered(items, Digest(order=order), lambda id_, _: said[id_])
    assert [i.recipient_id for i in found] == shown


def test_items_too_large_for_one_mail_are_left_to_the_count() -> None:
    assert fitting(["x" * 50, "y" * 50, "z" * 50], most=110) == ["x" * 50, "y" * 50]
    # One that is too large by itself goes all the same.
    assert fitting(["x" * 500], most=110) == ["x" * 500]
