"""The oracle of the fault harness: each contradiction between the books is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.stage.books import Account, Journal, reckon

BAD = b"not a document"


def account(
    directory: Path, state: str, attempts: str, copies: int, *, parked: int = 0, bad: bool = False
) -> Account:
    """One published mail: its state, the kinds of its attempts, and copies at the relay.

    Then how often a bad document stands among the parked, and whether one was published.
    """
    journal = Journal(f"sqlite:///{directory / 'books.db'}")
    journal.execute("CREATE TABLE recipients (id INTEGER, email TEXT, state TEXT)")
    journal.execute("CREATE TABLE attempts (recipient_id INTEGER, kind TEXT)")
    journal.execute("CREATE TABLE parked (body BLOB)")
    if state:
        journal.execute("INSERT INTO recipients VALUES (1, 'ann@example.com', :s)", s=state)
    for kind in attempts.split():
        journal.execute("INSERT INTO attempts VALUES (1, :k)", k=kind)
    for _ in range(parked):
        journal.execute("INSERT INTO parked VALUES (:b)", b=BAD)
    taken = {"ann@example.com": copies} if copies else {}
    return reckon(journal, taken, ["ann@example.com"], [BAD] if bad else [])


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


@pytest.mark.parametrize("times", [1, 2])
def test_a_bad_document_is_parked(tmp_path: Path, times: int) -> None:
    seen = account(tmp_path, "sent", "sent", 1, parked=times, bad=True)
    assert seen.clean
    assert seen.parked == times


@pytest.mark.parametrize(
    ("found", "parked", "bad"), [("lost", 0, True), ("extra", 3, True), ("strange", 1, False)]
)
def test_a_bad_document_elsewhere_is_found(
    tmp_path: Path, found: str, parked: int, bad: bool
) -> None:
    seen = account(tmp_path, "sent", "sent", 1, parked=parked, bad=bad)
    assert getattr(seen, found) == (repr(BAD),)
    assert not seen.clean


def test_what_nobody_published_is_strange(tmp_path: Path) -> None:
    seen = account(tmp_path, "sent", "sent", 1)
    assert seen.clean
    journal = Journal(f"sqlite:///{tmp_path / 'books.db'}")
    assert reckon(journal, {}, []).strange == ("ann@example.com",)
