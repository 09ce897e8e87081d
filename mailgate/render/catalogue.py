"""The templates on disk, read once.

Owns the reading of template roots: names, files, fallbacks, quarantine. A
template that breaks a rule is kept as ``Broken`` with its reason and the rest
serve. After ``Catalogue.load`` no file is opened again; what was read is checked and
compiled when it is asked for, since that is fifty times the work and most processes
ask for a few.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs

import mailgate
from mailgate.render.errors import Broken, Fault, TemplateFault
from mailgate.render.files import Root, read, readable, shared_files
from mailgate.render.schema import read_schema
from mailgate.render.theme import read_theme

if TYPE_CHECKING:
    from mailgate.render.template import Template

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

_COMPILING = threading.RLock()


def built_in_root() -> Path:
    """The templates that come with mailgate: of the checkout, else of the package."""
    package = Path(mailgate.__file__).parent
    checkout = package.parent / "templates" / "email"
    return checkout if checkout.is_dir() else package / "_data" / "templates"


def folders(root: Path) -> list[Path]:
    """What may be templates; ``FileNotFoundError`` says why there is nothing to be read."""
    try:
        if root.is_dir():
            return [path for path in sorted(root.iterdir()) if path.is_dir()]
    except PermissionError as error:
        told = f"the template root {root} cannot be read: {error.strerror}"
        raise FileNotFoundError(told) from None
    raise FileNotFoundError(f"the template root {root} is no directory")


class Catalogue:
    """All templates by name; the first root that has a name wins it.

    Safe to share between threads.
    """

    def __init__(self, entries: Mapping[str, Template | Broken | Unread]) -> None:
        self._entries = dict(entries)

    @classmethod
    def load(
        cls,
        roots: Sequence[Path],
        *,
        default_locale: str = "en",
        only: Collection[str] | None = None,
    ) -> Catalogue:
        """Read every template of ``roots`` in order.

        ``default_locale`` is for manifests that name none. A root may leave out
        its shared folders, or parts of them: the built-in ones stand in. A theme
        in an earlier root also dresses the templates of the built-in root.
        ``only`` reads the templates of these names. Raises ``FileNotFoundError`` for a
        root that is not there to be read.
        """
        entries: dict[str, Template | Broken | Unread] = {}
        built_in = shared_files(built_in_root())
        base = read_theme("_theme/default.json", built_in["_theme/default.json"])
        themes: dict[str, str] = {}
        for root in roots:
            inside = folders(root)
            try:
                own = shared_files(root)
                dress = themes if root.samefile(built_in_root()) else {}
                shared, fault = Root({**built_in, **own, **dress}, base), ""
                for file in own:
                    if file.startswith("_theme/"):
                        themes.setdefault(file, own[file])
            except TemplateFault as error:
                shared, fault = Root({}), str(error)
            for folder in inside:
                name = folder.name
                if name.startswith((".", "_")) or name in entries:
                    continue
                if only is not None and name not in only:
                    continue
                try:
                    if fault:
                        raise TemplateFault(fault)
                    entries[name] = _read(folder, shared, default_locale)
                except TemplateFault as error:
                    entries[name] = Broken(name, str(error))
        return cls(entries)

    def renewed(self, names: Collection[str], newer: Catalogue) -> Catalogue:
        """This catalogue with ``names`` as they are in ``newer``, or gone when they are not."""
        kept = {name: entry for name, entry in self._entries.items() if name not in names}
        return Catalogue({**kept, **newer._entries})

    def names(self) -> list[str]:
        """All names in order, broken ones too."""
        return sorted(self._entries)

    def get(self, name: str) -> Template | Broken | None:
        found = self._entries.get(name)
        if isinstance(found, Unread):
            # The sources of one root are compiled in one environment, by one at a time.
            with _COMPILING:
                found = self._entries[name]
                if isinstance(found, Unread):
                    found = self._entries[name] = found.template()
        return found

    def check_data(self, template: str, data: Mapping[str, Any]) -> list[Fault]:
        """Everything that is wrong with ``data`` for ``template``, all at once.

        An unknown template is one fault. A broken one is none: its messages
        are accepted and held until the author has mended it.
        """
        unread = self._entries.get(template)
        if isinstance(unread, Unread) and unread.fits(data):
            return []
        found = self.get(template)
        if found is None:
            near = get_close_matches(template, self.names(), 1, 0.7)
            hint = f"; did you mean {near[0]}?" if near else ""
            return [Fault("template", "unknown template" + hint)]
        return [] if isinstance(found, Broken) else found.faults(data)


@dataclass(frozen=True)
class Unread:
    """The files of a template as they were on disk, not yet looked into."""

    name: str
    root: Root
    own: Mapping[str, str]
    fixtures: Mapping[str, str]
    default_locale: str

    @functools.cached_property
    def _validator(self) -> jsonschema_rs.Draft202012Validator | None:
        try:
            return read_schema(self.own)[1]
        except TemplateFault:
            return None

    def fits(self, data: Mapping[str, Any]) -> bool:
        """Whether ``data`` fits the schema: all that is asked of most, and cheap.

        What does not fit is for the template to judge, which may be broken itself.
        """
        validator = self._validator
        return validator is not None and validator.is_valid(dict(data))

    def template(self) -> Template | Broken:
        # Here and not above: who only checks data, as intake does, needs no Jinja.
        from mailgate.render.compiling import compiled

        try:
            return compiled(self.name, self.root, self.own, self.fixtures, self.default_locale)
        except TemplateFault as error:
            return Broken(self.name, str(error))


def _read(folder: Path, root: Root, default_locale: str) -> Unread:
    name = folder.name
    if not _NAME.fullmatch(name):
        raise TemplateFault(f"{name!r} is no template name: a-z, 0-9, '_' and '-', at most 64")
    if folder.is_symlink():
        raise TemplateFault("symbolic links are refused")
    with readable(name):
        own = {p.name: read(p) for p in sorted(folder.iterdir()) if not _is_beside(p)}
        fixtures = {p.name: read(p) for p in sorted((folder / "fixtures").glob("*.json"))}
    return Unread(name, root, own, fixtures, default_locale)


def _is_beside(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "fixtures" or path.suffix == ".md"
