"""Saves are noticed, however an editor writes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from mailgate.render.shelf import look
from mailgate.studio.watch import watch


def test_every_file_counts_but_hidden_ones_and_copies(tmp_path: Path):
    (tmp_path / "one").mkdir()
    for name in ("one/en.html", "one/.en.html.swp", "one/en.html~", "one/#en.html#", ".git"):
        (tmp_path / name).write_text("x")
    assert set(look([tmp_path])) == {str(tmp_path / "one/en.html")}


def test_a_root_that_is_gone_is_empty(tmp_path: Path):
    assert look([tmp_path / "nowhere"]) == {}


def test_a_linked_folder_is_not_followed(tmp_path: Path):
    (tmp_path / "loop").symlink_to(tmp_path)
    assert set(look([tmp_path])) == {str(tmp_path / "loop")}


async def test_each_way_of_saving_is_noticed(tmp_path: Path):
    file = tmp_path / "en.html"
    file.write_text("one")
    noticed: asyncio.Queue[frozenset[str]] = asyncio.Queue()

    async def comes(*names: str) -> None:
        paths = await asyncio.wait_for(noticed.get(), 10)
        assert paths == {str(tmp_path / name) for name in names}

    watching = asyncio.create_task(watch([tmp_path], look([tmp_path]), noticed.put))
    before = file.stat()
    file.write_text("two")  # of the same size, in place
    await comes("en.html")
    # Written beside and put in its place, with size and time as they were.
    other = tmp_path / ".new"
    other.write_text("six")
    os.utime(other, ns=(before.st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    await comes("en.html")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/de.html").write_text("new")
    await comes("folder/de.html")
    file.unlink()
    await comes("en.html")
    watching.cancel()


async def test_a_save_in_several_steps_is_one_change(tmp_path: Path):
    file = tmp_path / "en.html"
    file.write_text("one")
    seen: list[str] = []

    async def changed(_paths: frozenset[str]) -> None:
        seen.append(file.read_text())

    watching = asyncio.create_task(watch([tmp_path], look([tmp_path]), changed))
    for part in range(30):
        file.write_text("x" * part)
        await asyncio.sleep(0.02)
    file.write_text("whole")
    deadline = asyncio.get_running_loop().time() + 10
    while not seen or seen[-1] != "whole":
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    watching.cancel()
    assert len(seen) <= 2
