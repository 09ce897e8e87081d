"""What of a new configuration can be taken without a restart, and what cannot.

Owns the list of both, and the short name (fingerprint) by which people compare what
processes run. Pure: reads nothing, and tells nobody.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from mailgate.config.producers import Producer
from mailgate.config.relays import Relay
from mailgate.config.review import masked
from mailgate.config.shape import Config

#: Sections and keys that every process takes while it runs.
TAKEN = (
    "default_stream",
    "default_producer",
    "message_id_domain",
    "streams",
    "producers",
    "throttles",
    "digests",
    "schedules",
    "sources",
    "limits",
    "breakers",
    "suppressions",
    "retention",
    "rules",
)
#: Of sections that are otherwise bound to connections, sockets or sizes.
TAKEN_OF_INTAKE = ("max_bytes", "unknown_producers")
TAKEN_OF_RELAY = ("rate", "domains")
#: What one machine may have otherwise than the next, and the fingerprint leaves out.
_LOCAL = ("state_dir", "templates", "metrics", "inbox", "studio", "log")


@dataclass(frozen=True, slots=True)
class Renewal:
    """A configuration that can be in force now, and how it came about.

    ``taken`` are the keys that changed, ``restart`` those that wait for one; relays that are
    ``new`` are not in any pool yet.
    """

    config: Config
    taken: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


def renewed(old: Config, new: Config, known: Mapping[str, Relay] | None = None) -> Renewal:
    """``old`` with all of ``new`` that needs no restart.

    ``known`` are relays that were left out earlier, and whose connections may live: one that
    comes back otherwise than it was needs a restart.
    """
    values: dict[str, Any] = {}
    taken: list[str] = []
    restart: list[str] = []
    for name in Config.model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if _same(before, after) or name in ("relays", "producers", "intake"):
            continue
        keys = list(_changed(name, before, after))
        if name in TAKEN:
            values[name] = after
            taken += keys
        else:
            restart += keys
    intake = {k: getattr(new.intake, k) for k in TAKEN_OF_INTAKE}
    if (merged := old.intake.model_copy(update=intake)) != old.intake:
        values["intake"] = merged
        taken += _changed("intake", old.intake, merged)
    restart += _changed("intake", values.get("intake", old.intake), new.intake)
    values["producers"], queues = _producers(old, new)
    taken += _changed("producers", old.producers, values["producers"])
    restart += queues
    values["relays"], others = _relays({**(known or {}), **old.relays}, new.relays)
    taken += _changed("relays", old.relays, values["relays"])
    restart += others
    fresh = tuple(name for name in values["relays"] if name not in {**(known or {}), **old.relays})
    return Renewal(old.model_copy(update=values), tuple(taken), tuple(restart), fresh)


def _producers(old: Config, new: Config) -> tuple[dict[str, Producer], list[str]]:
    """The new producers, with the queues that intake has opened."""
    merged, restart = {}, []
    for name, section in new.producers.items():
        before = old.producers[name].queue if name in old.producers else None
        if section.queue != before:
            restart.append(f"producers.{name}.queue")
            section = section.model_copy(update={"queue": before})
        merged[name] = section
    return merged, restart


def _relays(
    known: Mapping[str, Relay], new: Mapping[str, Relay]
) -> tuple[dict[str, Relay], list[str]]:
    """The new relays; of those that have connections only how fast mail may go there."""
    merged: dict[str, Relay] = {}
    restart: list[str] = []
    for name, section in new.items():
        if name in known:
            live = {key: getattr(section, key) for key in TAKEN_OF_RELAY}
            merged[name] = known[name].model_copy(update=live)
            restart += _changed(f"relays.{name}", merged[name], section)
        else:
            merged[name] = section
    return merged, restart


def _changed(key: str, before: Any, after: Any) -> Iterator[str]:
    """The keys below ``key`` that differ, one level deep: enough to find them."""
    if _same(before, after):
        return
    if before == after:
        yield key
        return
    if isinstance(before, BaseModel) and type(before) is type(after):
        for name, field in type(before).model_fields.items():
            if getattr(before, name) != getattr(after, name):
                yield f"{key}.{field.alias or name}"
    elif isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            if before.get(name) != after.get(name):
                yield f'{key}."{name}"' if "." in name else f"{key}.{name}"
    else:
        yield key


def _same(before: Any, after: Any) -> bool:
    """Equal, and in the same order: the first rule wins, and the first relay."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before == after and list(before) == list(after)
    return bool(before == after)


def fingerprint(config: Config) -> str:
    """Eight letters and digits that differ when what processes share differs.

    No secret goes into it, and nothing that is one machine's own.
    """
    shared = {name: value for name, value in masked(config).items() if name not in _LOCAL}
    text = json.dumps(shared, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
