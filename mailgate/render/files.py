"""The files of a template root, as they are on disk.

Owns the reading of files: plain files inside a root, no links, no NUL. Looks into
none of them, and needs no Jinja: whoever only checks data has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mailgate.render.errors import TemplateFault
from mailgate.render.theme import Theme

if TYPE_CHECKING:
    from mailgate.render.sources import Reader

_SHARED = ("_theme", "_layouts", "_components", "_css")
#: A source of more bytes would make more than mail programs show (Gmail: 102 kB).
_MAX_FILE = 256 * 1024


@contextmanager
def readable(name: str) -> Iterator[None]:
    """What may not be read is put aside like any other fault of a template."""
    try:
        yield
    except PermissionError as error:
        at = Path(error.filename).name if error.filename else name
        told = at if at == name else f"{name}/{at}"
        raise TemplateFault(f"{told}: {error.strerror}") from None


def read(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        raise TemplateFault(f"{path.name}: not a plain file (symbolic links are refused)")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TemplateFault(f"{path.name}: {error.strerror}") from None
    if len(raw) > _MAX_FILE:
        raise TemplateFault(f"{path.name}: larger than {_MAX_FILE} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise TemplateFault(f"{path.name}: not UTF-8") from None
    if "\0" in text:
        raise TemplateFault(f"{path.name}: holds NUL")
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def shared_files(root: Path) -> dict[str, str]:
    files = {}
    for folder in _SHARED:
        base = root / folder
        if base.is_symlink():
            raise TemplateFault(f"{folder}: symbolic links are refused")
        with readable(folder):
            for path in sorted(base.iterdir()) if base.is_dir() else ():
                if not path.name.startswith("."):
                    files[f"{folder}/{path.name}"] = read(path)
    return files


class Root:
    """The shared files of one root, and what ``sources.reader_of`` makes of them.

    A theme that leaves a token out takes it from ``base``, so that themes written
    for an older release go on to serve.
    """

    def __init__(self, shared: Mapping[str, str], base: Theme | None = None) -> None:
        self.shared, self.base = shared, base
        self.readers: dict[str, Reader] = {}
