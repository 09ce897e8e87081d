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
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jsonschema_rs

import mailgate
from mailgate.model.address import Address
from mailgate.render.errors import Fault, RenderError, TemplateFault
from mailgate.render.sandbox import produce
from mailgate.render.schema import read_json, read_schema
from mailgate.render.sources import Reader, Root, Source, read, readable, shared_files
from mailgate.render.template import RESERVED, Broken, Manifest, Template, Variant
from mailgate.render.theme import read_theme

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_LOCALE = re.compile(r"[a-z]{2,3}(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|\d{3}))?")
_MANIFEST_KEYS = {
    "name": str, "version": int, "description": str, "category": str,
    "default_locale": str, "text": str, "theme": str, "max_bytes": int,
}  # fmt: skip

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
        try:
            return _compile(self)
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


def _compile(unread: Unread) -> Template:
    name, own = unread.name, unread.own
    manifest = _manifest(name, own, unread.default_locale)
    schema, validator = read_schema(own)
    reader = unread.root.reader(manifest.theme)
    for file, source in own.items():
        reader.sources[f"{name}/{file}"] = source
    known = set(schema["properties"]) | RESERVED
    variants, used = {}, {f"{name}/template.toml", f"{name}/context.schema.json"}
    for locale in sorted(f.removesuffix(".html") for f in own if f.endswith(".html")):
        variants[locale], sources = _variant(reader, locale, manifest, own, known)
        used |= sources
    if manifest.default_locale not in variants:
        raise TemplateFault(f"there is no {manifest.default_locale}.html for the default locale")
    fixtures = {
        file.removesuffix(".json"): read_json(file, text) for file, text in unread.fixtures.items()
    }
    digest = blake2b(digest_size=16)
    for key in sorted(used):
        digest.update(f"{key}\0{reader.sources[key]}\0".encode())
    digest.update(reader.theme.source.encode())
    template = Template(
        manifest, reader.theme, schema, validator, variants, fixtures, digest.hexdigest()
    )
    _try(template)
    return template


def _is_beside(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "fixtures" or path.suffix == ".md"


def _manifest(name: str, own: Mapping[str, str], default_locale: str) -> Manifest:
    if "template.toml" not in own:
        raise TemplateFault("there is no template.toml")
    try:
        given = tomllib.loads(own["template.toml"])
    except tomllib.TOMLDecodeError as error:
        raise TemplateFault(f"template.toml: {error}") from None
    for key, value in given.items():
        wanted = _MANIFEST_KEYS.get(key)
        if wanted is None:
            raise TemplateFault(f"template.toml: unknown key {key}")
        if type(value) is not wanted:
            raise TemplateFault(f"template.toml: {key} is not {wanted.__name__}")
    if given.get("name", name) != name:
        raise TemplateFault(f"template.toml: name is {given['name']!r}, the folder is {name!r}")
    text = given.get("text", "derived")
    if text not in ("authored", "derived"):
        raise TemplateFault("template.toml: text is 'authored' or 'derived'")
    return Manifest(
        name=name,
        version=given.get("version", 1),
        description=given.get("description", ""),
        category=given.get("category", "transactional"),
        default_locale=given.get("default_locale", default_locale),
        text=text,
        theme=given.get("theme", "default"),
        max_bytes=given.get("max_bytes", 200_000),
    )


def _variant(
    reader: Reader, locale: str, manifest: Manifest, own: Mapping[str, str], known: set[str]
) -> tuple[Variant, set[str]]:
    """One language of a template, and the names of all sources it is made from."""
    name = manifest.name
    if not _LOCALE.fullmatch(locale):
        raise TemplateFault(f"{locale}.html: {locale!r} is no locale such as en or pt-BR")
    if f"{locale}.subject" not in own:
        raise TemplateFault(f"there is no {locale}.subject")
    if "\n" in own[f"{locale}.subject"].strip():
        raise TemplateFault(f"{locale}.subject: a subject is one line")
    authored = manifest.text == "authored"
    if authored != (f"{locale}.txt" in own):
        raise TemplateFault(
            f"there is no {locale}.txt, and template.toml says text = 'authored'"
            if authored
            else f"{locale}.txt would not be used: template.toml does not say text = 'authored'"
        )
    used: dict[str, Source] = {}
    for kind in ("subject", "html", "txt") if authored else ("subject", "html"):
        for source, facts in reader.closure(f"{name}/{locale}.{kind}", html=kind == "html").items():
            unknown = sorted(facts.free - known)
            if unknown:
                raise TemplateFault(f"{source}: {', '.join(unknown)} is not in the schema")
            used[source] = facts
    html = reader.closure(f"{name}/{locale}.html", html=True)
    variant = Variant(
        locale,
        subject=reader.compiled(f"{name}/{locale}.subject", html=False),
        html=reader.compiled(f"{name}/{locale}.html", html=True),
        text=reader.compiled(f"{name}/{locale}.txt", html=False) if authored else None,
        capturing=any(facts.capturing for facts in html.values()),
    )
    return variant, set(used)


def _try(template: Template) -> None:
    """Render every fixture through Jinja, which finds what reading cannot."""
    sender = Address("sender@example.com", "Example")
    for key, data in template.fixtures.items():
        faults = template.faults(data) if isinstance(data, dict) else [Fault("data", "no object")]
        if faults:
            raise TemplateFault(f"fixtures/{key}.json: {faults[0].field} {faults[0].rule}")
        for variant in template.variants.values():
            context = template.context(data, variant, sender, "https://example.com/u")
            try:
                template.subject(variant, context)
                produce(variant.html, context, None)
                if variant.text is not None:
                    produce(variant.text, context, None)
            except RenderError as error:
                raise TemplateFault(
                    f"{variant.locale} with fixtures/{key}.json: {error.message}"
                ) from None
