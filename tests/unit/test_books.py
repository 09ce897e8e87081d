"""The oracle of the fault harness: each contradiction between the books is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.stage.books import Account, Journal, reckon


def account(directory: Path, state: str, attempts: str, copies: int, *, parked: int = 0) -> Account:
    """One published mail: its state, the kinds of its attempts, and copies at the relay."""
    journal = Journal(f"sqlite:///{directory / 'books.db'}")
    journal.execute("CREATE TABLE recipients (id INTEGER, email TEXT, state TEXT)")
    journal.execute("CREATE TABLE attempts (recipient_id INTEGER, kind TEXT)")
    journal.execute("CREATE TABLE parked (id INTEGER)")
    if state:
        journal.execute("INSERT INTO recipients VALUES (1, 'ann@example.com', :s)", s=state)
    for kind in attempts.split():
        journal.execute("INSERT INTO attempts VALUES (1, :k)", k=kind)
    for n in range(parked):
        journal.execute("INSERT INTO parked VALUES (:n)", n=n)
    taken = {"ann@example.com": copies} if copies else {}
    return reckon(journal, taken, ["ann@example.com"])


@pytest.mark.parametrize(
    ("state", "attempts", "copies"),
    [
        ("sent", "sent", 1),
        ("sent", "deferred sent", 1),
        ("sent", "uncertain sent", 1),
        ("sent", "uncertain sent", 2),
        ("sent", "uncertain uncertain sent", 3),
        ("uncertain", "uncertain", 0),
        ("uncertain", "uncertain", 1),
        ("bounced", "bounce", 0),
        ("failed", "uncertain fail", 1),
        ("held", "", 0),
    ],
)
def test_what_the_books_agree_on_is_clean(
    tmp_path: Path, state: str, attempts: str, copies: int
) -> None:
    assert account(tmp_path, state, attempts, copies).clean


@pytest.mark.parametrize(
    ("found", "state", "attempts", "copies"),
    [
        ("lost", "", "", 0),
        ("unfinished", "queued", "", 0),
        ("unfinished", "sending", "", 0),
        ("extra", "sent", "sent", 2),
        ("extra", "sent", "uncertain sent", 3),
        ("extra", "uncertain", "uncertain", 2),
        ("extra", "sent", "defer sent sent", 2),
        ("extra", "bounced", "bounce", 1),
        ("extra", "held", "", 1),
        ("unsent", "sent", "sent", 0),
        ("unsent", "sent", "sent sent", 1),
        ("odd", "sent", "uncertain", 1),
        ("odd", "sent", "", 0),
        ("odd", "failed", "sent", 1),
    ],
)
def test_what_they_do_not_is_found(
    tmp_path: Path, found: str, state: str, attempts: str, copies: int
) -> None:
    seen = account(tmp_path, state, attempts, copies)
    assert getattr(seen, found) == ("ann@example.com",)
    assert not seen.clean


def test_what_was_parked_is_no_clean_book(tmp_path: Path) -> None:
    assert not account(tmp_path, "sent", "sent", 1, parked=1).clean


def test_what_nobody_published_is_strange(tmp_path: Path) -> None:
    seen = account(tmp_path, "sent", "sent", 1)
    assert seen.clean
    journal = Journal(f"sqlite:///{tmp_path / 'books.db'}")
    assert reckon(journal, {}, []).strange == ("ann@example.com",)
