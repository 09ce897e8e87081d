"""Template sources: checked and compiled, each once.

Owns the compiled environments. Reads no file (``files.py`` does), and never decides
what a template is: ``compiling.py`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import jinja2
from jinja2 import meta

from mailgate.render import budget, check
from mailgate.render.errors import RenderError, TemplateFault
from mailgate.render.files import Root
from mailgate.render.sandbox import Sandbox
from mailgate.render.theme import Theme, read_theme


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


def reader_of(root: Root, theme: str) -> Reader:
    """What reads the sources of ``root`` under ``theme``, the same each time.

    Raises ``TemplateFault`` when there is no such theme, or it breaks a rule.
    """
    if theme not in root.readers:
        file = f"_theme/{theme}.json"
        if file not in root.shared:
            raise TemplateFault(f"template.toml: there is no {file}")
        dress = read_theme(file, root.shared[file], root.base)
        root.readers[theme] = Reader(root.shared, dress)
    return root.readers[theme]
