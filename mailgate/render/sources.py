"""Template sources: read from disk, checked, compiled, each once.

Owns the reading of files (plain files inside a root, no links, no NUL) and the
compiled environments. Never decides what a template is: ``catalogue.py`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jinja2
from jinja2 import meta

from mailgate.render import budget, check
from mailgate.render.errors import RenderError, TemplateFault
from mailgate.render.sandbox import Sandbox
from mailgate.render.theme import Theme, read_theme

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


@dataclass(frozen=True, slots=True)
class Source:
    """What reading one source says about it."""

    free: set[str]
    uses: tuple[str, ...]
    capturing: bool


class Reader:
    """Checks and compiles the sources of one root under one theme, each once."""

    def __init__(self, shared: Mapping[str, str], theme: Theme) -> None:
        self.theme = theme
        self.sources = dict(shared)
        self._html = Sandbox(self.sources, html=True, theme=theme.tokens)
        self._plain = Sandbox(self.sources, html=False, theme=theme.tokens)
        self._known: dict[tuple[str, bool], Source] = {}

    def compiled(self, name: str, *, html: bool) -> jinja2.Template:
        with _faults_of(name):
            return (self._html if html else self._plain).get_template(name)

    def closure(self, name: str, *, html: bool) -> dict[str, Source]:
        """``name`` and every source that it uses, however far away."""
        found: dict[str, Source] = {}
        pending = [name]
        while pending:
            at = pending.pop()
            if at not in found:
                found[at] = self._source(at, html)
                pending += found[at].uses
        return found

    def _source(self, name: str, html: bool) -> Source:
        kept = self._known.get((name, html))
        if kept is None:
            if name not in self.sources:
                raise TemplateFault(f"{name}: there is no such file")
            environment = self._html if html else self._plain
            source = self.sources[name]
            with _faults_of(name):
                tree = check.check_syntax(environment, name, source)
                if html:
                    check.check_html(environment, name, source, sheet=name.endswith(".css"))
                uses = tuple(str(n) for n in meta.find_referenced_templates(tree))
                kept = Source(check.free_names(tree), uses, check.captures(tree))
            self._known[name, html] = kept
        return kept


@contextmanager
def _faults_of(name: str) -> Iterator[None]:
    """Whatever reading or compiling a source raises, as a fault of its author's."""
    try:
        with budget.apart():
            yield
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        raise TemplateFault(f"{name}{f' line {line}' if line else ''}: {error}") from None
    except RecursionError:
        raise TemplateFault(f"{name}: nested too deeply") from None
    except RenderError as error:
        raise TemplateFault(f"{name}: {error.message}") from None
    except (SyntaxError, ValueError, MemoryError) as error:
        # Python, to which Jinja compiles, has limits too: 20 loops in each other.
        raise TemplateFault(f"{name}: {error or type(error).__name__}") from None


class Root:
    """The shared files of one root and what is compiled from them.

    A theme that leaves a token out takes it from ``base``, so that themes written
    for an older release go on to serve.
    """

    def __init__(self, shared: Mapping[str, str], base: Theme | None = None) -> None:
        self._shared, self._base = shared, base
        self._readers: dict[str, Reader] = {}

    def reader(self, theme: str) -> Reader:
        if theme not in self._readers:
            file = f"_theme/{theme}.json"
            if file not in self._shared:
                raise TemplateFault(f"template.toml: there is no {file}")
            dress = read_theme(file, self._shared[file], self._base)
            self._readers[theme] = Reader(self._shared, dress)
        return self._readers[theme]
