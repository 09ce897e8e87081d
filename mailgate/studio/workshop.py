"""The templates as they are on disk now, and mails made from them.

Owns the catalogue that is shown, its reloading, and the last renderings. A mail is
made as a worker makes it: a letter, the renderer, bytes; what is shown is read back
from those bytes. Never sends.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailgate.contract import strict_json
from mailgate.model.address import Address
from mailgate.model.ids import Ids, spell
from mailgate.model.message import Letter, Unsubscribe
from mailgate.render.catalogue import Catalogue
from mailgate.render.dkim import Signer
from mailgate.render.errors import Broken, Fault, RenderError
from mailgate.render.findings import Finding, broken, findings
from mailgate.render.renderer import Renderer
from mailgate.render.shelf import touched
from mailgate.render.template import Template

#: Who shown mails are from, while no stream says it, and to whom.
SENDER = Address("sender@example.com", "Example")
READER = Address("reader@example.com", "Ann Reader")
_UNSUBSCRIBE = Unsubscribe("https://example.com/unsubscribe?token=studio")
#: Renderings that can still be shown in a frame.
_KEPT = 64


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made: a template, its data as JSON text, a language."""

    template: str
    data: str
    locale: str | None = None
    unsubscribe: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A mail, or why there is none: faults of the data, else a ``problem`` of the template."""

    content: bytes | None = None
    faults: tuple[Fault, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _State:
    number: int
    renderer: Renderer
    problem: str = ""


class Workshop:
    """The templates of some roots. Safe to use from several threads."""

    def __init__(
        self,
        roots: Sequence[Path],
        default_locale: str,
        ids: Ids,
        domain: str,
        signer: Signer | None = None,
    ) -> None:
        """Reads the roots. Raises ``FileNotFoundError`` for one that is not there to be read."""
        self._signer = signer
        self.roots = tuple(roots)
        self._default_locale = default_locale
        self._ids = ids
        self._ids_lock = threading.Lock()
        self._domain = domain
        # A browser that stayed open over a restart must see that all is new.
        self._run = secrets.token_hex(4)
        self._looked_at = ""
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._state = _State(1, self._renderer(self._load(None)))

    @property
    def version(self) -> str:
        """Changes whenever the templates were read anew."""
        return f"{self._run}-{self._state.number}"

    def steps(self, paths: Collection[str]) -> list[frozenset[str] | None]:
        """What to read again after ``paths`` have changed; ``None`` is everything.

        A shared file changes all templates: the one that was looked at last goes first.
        """
        names = touched(self.roots, paths)
        if names is None and self._looked_at:
            return [frozenset({self._looked_at}), None]
        return [names]

    def reload(self, names: frozenset[str] | None) -> None:
        """Read templates again, all for ``None``; what cannot be read stays as it was."""
        number = self._state.number + 1
        catalogue = self._state.renderer.catalogue
        try:
            newer = self._load(names)
        except OSError as error:
            self._state = _State(number, self._state.renderer, str(error))
            return
        if names is not None:
            newer = catalogue.renewed(names, newer)
        self._state = _State(number, self._renderer(newer))

    def _renderer(self, catalogue: Catalogue) -> Renderer:
        return Renderer(catalogue, signer=self._signer)

    def _load(self, names: frozenset[str] | None) -> Catalogue:
        return Catalogue.load(self.roots, default_locale=self._default_locale, only=names)

    # --- what there is --------------------------------------------------------------

    def catalogue(self) -> dict[str, Any]:
        """All templates in one line each."""
        state = self._state
        items = []
        for name in state.renderer.catalogue.names():
            found = state.renderer.catalogue.get(name)
            if isinstance(found, Broken):
                items.append({"name": name, "broken": True, "about": str(broken(found))})
            elif found is not None:
                items.append({"name": name, "broken": False, "about": found.manifest.description})
        return {"version": self.version, "problem": state.problem, "items": items}

    def template(self, name: str) -> dict[str, Any] | None:
        """One template: its languages, fixtures and variables; ``None`` when there is none."""
        found = self._state.renderer.catalogue.get(name)
        if found is None:
            return None
        if isinstance(found, Broken):
            return {"name": name, "broken": True, "about": "", "error": str(broken(found))}
        return {
            "name": name,
            "broken": False,
            "about": found.manifest.description,
            "default_locale": found.manifest.default_locale,
            "locales": found.locales,
            "fixtures": {key: _written(data) for key, data in found.fixtures.items()},
            "variables": _variables(found),
        }

    def findings(self, name: str) -> list[Finding]:
        """What the checks say about a template; takes a second for a large one."""
        return findings(self._state.renderer, name)

    # --- mails ------------------------------------------------------------------------

    def make(self, order: Order, sender: Address, to: Address = READER) -> Made:
        """The mail that a worker would send for ``order``."""
        self._looked_at = order.template
        document, flaws = strict_json.parse(order.data.encode("utf-8", "surrogatepass"))
        if flaws:
            return Made(faults=tuple(Fault(fault.field, fault.rule) for _, fault in flaws))
        if not isinstance(document, dict):
            return Made(faults=(Fault("data", "must be an object"),))
        renderer = self._state.renderer
        faults = renderer.catalogue.check_data(order.template, document)
        if faults:
            return Made(faults=tuple(faults))
        letter = self._letter(order, document, sender, to)
        try:
            return Made(content=renderer.render(letter))
        except RenderError as error:
            return Made(problem=error.message)

    def keep(self, content: bytes) -> str:
        """A name under which a rendering can be shown for a while."""
        name = secrets.token_hex(8)
        self._kept[name] = content
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return name

    def kept(self, name: str) -> bytes | None:
        return self._kept.get(name)

    def _letter(
        self, order: Order, data: Mapping[str, Any], sender: Address, to: Address
    ) -> Letter:
        now = time.time_ns() // 1_000_000
        with self._ids_lock:
            number = spell(self._ids.take(now))
        return Letter(
            message_id=f"<{number}@{self._domain or sender.domain}>",
            date=now,
            boundary_seed=number,
            sender=sender,
            to=(to,),
            template=order.template,
            data=data,
            locale=order.locale or self._default_locale,
            unsubscribe=_UNSUBSCRIBE if order.unsubscribe else None,
        )


def _written(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2)


def _variables(found: Template) -> list[dict[str, Any]]:
    """The first level of the schema, required ones first, for the author's eye."""
    required = found.schema.get("required", [])
    out = []
    for name, rule in found.schema["properties"].items():
        rule = rule if isinstance(rule, dict) else {}
        kind = rule.get("type", "object" if "$ref" in rule else "any")
        out.append(
            {
                "name": name,
                "required": name in required,
                "type": " or ".join(kind) if isinstance(kind, list) else str(kind),
                "about": str(rule.get("description", "")),
            }
        )
    return sorted(out, key=lambda variable: not variable["required"])
