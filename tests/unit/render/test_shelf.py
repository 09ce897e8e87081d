"""A process that goes on sees templates that are saved, mended, broken, added and removed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailgate.render import Broken, Template
from mailgate.render.shelf import Shelf, look, touched

MakeRoot = Callable[..., Path]


def renewed(shelf: Shelf) -> frozenset[str]:
    """A change is read at the second look that sees it."""
    assert shelf.renew() == frozenset()
    return shelf.renew()


def test_what_nobody_touches_is_not_read_again(make_root: MakeRoot) -> None:
    shelf = Shelf([make_root()])
    kept = shelf.catalogue
    assert [shelf.renew() for _ in range(3)] == [frozenset()] * 3
    assert shelf.catalogue is kept


def test_a_template_that_is_broken_and_mended(
    make_root: MakeRoot, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_root("<p>{{ nam }}</p>")
    make_root(name="other")
    shelf = Shelf([root])
    assert isinstance(shelf.catalogue.get("t"), Broken)
    other = shelf.catalogue.get("other")
    make_root("<p>{{ name }}, hello</p>")
    assert renewed(shelf) == {"t"}
    assert isinstance(shelf.catalogue.get("t"), Template)
    assert shelf.catalogue.get("other") is other
    make_root("<p>{{ name }")
    assert renewed(shelf) == {"t"}
    assert isinstance(shelf.catalogue.get("t"), Broken)
    assert "template t is broken, its mail waits: t/en.html" in caplog.text


def test_templates_come_and_go(make_root: MakeRoot) -> None:
    root = make_root()
    shelf = Shelf([root])
    assert shelf.check_data("new", {"name": "x"})[0].rule == "unknown template"
    make_root(name="new")
    assert renewed(shelf) == {"new"}
    assert shelf.check_data("new", {"name": "x"}) == []
    shutil.rmtree(root / "new")
    assert renewed(shelf) == {"new"}
    assert shelf.catalogue.get("new") is None


def test_a_shared_file_changes_those_that_use_it(make_root: MakeRoot) -> None:
    root = make_root('{% include "_components/a.html" %}', files={"_components/a.html": "one"})
    make_root(name="plain")
    shelf = Shelf([root])
    (root / "_components/a.html").write_text("another")
    assert renewed(shelf) == {"t"}
    assert touched([root], [str(root / "_components/a.html")]) is None
    assert touched([root], [str(root / "t/en.html"), str(root / "u/en.html")]) == {"t", "u"}


def test_a_save_that_changes_nothing_is_nothing_new(make_root: MakeRoot) -> None:
    root = make_root()
    shelf = Shelf([root])
    os.utime(root / "t/en.html", ns=(1, 1))
    assert renewed(shelf) == frozenset()


def test_what_is_still_being_copied_waits(make_root: MakeRoot) -> None:
    root = make_root()
    shelf = Shelf([root])
    for size in range(3):
        (root / "t/en.html").write_text("{{ name }" + "x" * size)
        assert shelf.renew() == frozenset()
    make_root("<p>{{ name }}!</p>")
    assert renewed(shelf) == {"t"}
    assert isinstance(shelf.catalogue.get("t"), Template)


def test_a_root_that_is_away_for_a_while_takes_nothing_with_it(
    make_root: MakeRoot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    shutil.move(make_root() / "t", root / "t")
    shelf = Shelf([root])
    root.rename(tmp_path / "away")
    assert renewed(shelf) == frozenset()
    assert shelf.renew() == frozenset()
    assert isinstance(shelf.catalogue.get("t"), Template)
    assert caplog.text.count("cannot be read anew") == 1
    (tmp_path / "away").rename(root)
    (root / "t/en.html").write_text("<p>{{ name }}, back</p>")
    assert renewed(shelf) == {"t"}


def test_the_first_root_wins_after_a_change_too(make_root: MakeRoot, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(make_root("<p>second {{ name }}</p>"), second)
    first = tmp_path / "first"
    first.mkdir()
    shelf = Shelf([first, second])
    shutil.copytree(second / "t", first / "t")
    (first / "t/en.html").write_text("<p>first {{ name }}</p>")
    assert renewed(shelf) == {"t"}
    shutil.rmtree(first / "t")
    found: Any = shelf.catalogue.get("t")
    assert renewed(shelf) == {"t"}
    assert shelf.catalogue.get("t").hash != found.hash  # type: ignore[union-attr]


def test_rights_that_were_given_are_seen(make_root: MakeRoot) -> None:
    root = make_root()
    before = look([root])
    time.sleep(0.02)
    (root / "t/en.html").chmod(0o640)
    assert look([root]) != before
