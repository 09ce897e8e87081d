"""From a template's files to a template that serves, or to the first rule that it breaks.

Owns what its files have to be, each by itself and all together. Reads none of them from
disk: ``catalogue`` has them, and asks for this when a mail needs it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from hashlib import blake2b

from mailgate.model.address import Address
from mailgate.render.errors import Fault, RenderError, TemplateFault
from mailgate.render.files import Root
from mailgate.render.sandbox import produce
from mailgate.render.schema import RESERVED, read_json, read_schema
from mailgate.render.sources import Reader, Source, reader_of
from mailgate.render.template import Manifest, Template, Variant

_LOCALE = re.compile(r"[a-z]{2,3}(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|\d{3}))?")
_MANIFEST_KEYS = {
    "name": str, "version": int, "description": str, "category": str,
    "default_locale": str, "text": str, "theme": str, "max_bytes": int,
}  # fmt: skip


def compiled(
    name: str,
    root: Root,
    own: Mapping[str, str],
    fixtures: Mapping[str, str],
    default_locale: str,
) -> Template:
    """The template of these files. Raises ``TemplateFault`` for the first rule it breaks.

    ``own`` and ``fixtures`` are file names and what is in them. The sources of one root are
    compiled in one environment: by one thread at a time.
    """
    manifest = _manifest(name, own, default_locale)
    schema, validator = read_schema(own)
    reader = reader_of(root, manifest.theme)
    for file, source in own.items():
        reader.sources[f"{name}/{file}"] = source
    known = set(schema["properties"]) | RESERVED
    variants, used = {}, {f"{name}/template.toml", f"{name}/context.schema.json"}
    for locale in sorted(f.removesuffix(".html") for f in own if f.endswith(".html")):
        variants[locale], sources = _variant(reader, locale, manifest, own, known)
        used |= sources
    if manifest.default_locale not in variants:
        raise TemplateFault(f"there is no {manifest.default_locale}.html for the default locale")
    examples = {
        file.removesuffix(".json"): read_json(file, text) for file, text in fixtures.items()
    }
    digest = blake2b(digest_size=16)
    for key in sorted(used):
        digest.update(f"{key}\0{reader.sources[key]}\0".encode())
    digest.update(reader.theme.source.encode())
    template = Template(
        manifest, reader.theme, schema, validator, variants, examples, digest.hexdigest()
    )
    _try(template)
    return template


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
