"""A look at everything that mail depends on, for ``mailgate doctor``.

Owns which checks there are, that they run beside each other, and that each is given up
after its time: what hangs delays nobody. ``verdicts`` judges what they find. Never sends
mail, changes anything, or shows a password or an address.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import queue
import shutil
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path

from mailgate.config import urls
from mailgate.config.relays import Relay, Secret
from mailgate.config.review import warnings
from mailgate.config.shape import Config
from mailgate.delivery.watermark import Watermark
from mailgate.intake import look as rabbit
from mailgate.intake.depth import inboxes
from mailgate.journal import look as books
from mailgate.journal.database import Database, JournalAway
from mailgate.limits import look as store
from mailgate.log import mask_text
from mailgate.operations import verdicts
from mailgate.operations.verdicts import Finding, Level, fault, good, warn
from mailgate.render.catalogue import Catalogue, built_in_root
from mailgate.render.dkim_keys import read_keys
from mailgate.render.errors import Broken
from mailgate.smtp.check import look as look_at_relay

#: Seconds that one check may take.
PATIENCE = 5.0
#: Libraries whose versions decide how mail is carried.
_LIBRARIES = (
    *("celery", "kombu", "redis", "sqlalchemy", "psycopg", "aiosmtplib"),
    *("jinja2", "premailer", "lxml", "pydantic", "cryptography"),
)

#: What is work of this machine's own: when it takes long, nothing else is to blame.
_WORK = {"templates": "mailgate templates check takes its time"}

Check = Callable[[], Sequence[Finding]]
Free = Callable[[Path], int]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, in the order of the checks; ``hung`` names those that were given up."""

    findings: tuple[Finding, ...]
    hung: tuple[str, ...] = ()

    def count(self, level: Level) -> int:
        return sum(finding.level is level for finding in self.findings)


class NoSuchCheck(ValueError):
    """Names the checks that there are."""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at: ``config`` in force, ``said`` as it was written, with its secrets.

    ``limiter`` is the URL of the permits' store, or ``journal``; ``complaints`` are
    secrets that could not be had.
    """

    config: Config
    said: Config
    limiter: str
    passwords: Mapping[str, Secret]
    complaints: Sequence[str] = ()
    #: Checks of rooms that this one does not know.
    more: Mapping[str, Check] = field(default_factory=dict)


def examine(
    patient: Patient,
    only: Sequence[str] = (),
    *,
    patience: float = PATIENCE,
    free: Free = lambda place: shutil.disk_usage(place).free,
) -> Report:
    """Look at everything, or at what ``only`` names; blocks for about ``patience`` seconds.

    Raises ``NoSuchCheck``.
    """
    config, passwords = patient.config, patient.passwords
    checks: dict[str, Check] = {
        "configuration": partial(_configuration, patient.said, patient.complaints),
        "broker": partial(_broker, config),
        "journal": partial(_journal, config),
        "workers": partial(_people, config),
        "events": partial(_events, config),
        "limiter": partial(_limiter, config, patient.limiter),
        "disk": partial(_disk, config, free),
        "templates": partial(_templates, config),
        "versions": _versions,
    }
    for name, relay in config.relays.items():
        checks[f"relay {name}"] = partial(_relay, name, relay, passwords.get(name), patience)
    checks |= patient.more
    kinds = {name: name.partition(" ")[0] for name in checks}
    if strange := set(only) - set(kinds) - set(kinds.values()):
        there = ", ".join(dict.fromkeys(kinds.values()))
        raise NoSuchCheck(f"there is no check {min(strange)}; there are: {there}")
    chosen = {n: c for n, c in checks.items() if not only or {n, kinds[n]} & set(only)}
    return run(chosen, patience)


def run(checks: Mapping[str, Check], patience: float) -> Report:
    """Do every check in a thread of its own; nobody waits for one that hangs."""
    done: queue.SimpleQueue[tuple[str, Sequence[Finding]]] = queue.SimpleQueue()

    def one(name: str, check: Check) -> None:
        try:
            found = check()
        except Exception as error:  # noqa: BLE001 - the other checks are worth having
            what = f"could not be checked ({type(error).__name__})"
            found = [fault(name, what, "this is a fault of mailgate: please report it")]
        done.put((name, found))

    for name, check in checks.items():
        threading.Thread(target=one, args=(name, check), daemon=True).start()
    results: dict[str, Sequence[Finding]] = {}
    until = time.monotonic() + patience
    while len(results) < len(checks):
        try:
            name, found = done.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        results[name] = found
    hung = tuple(name for name in checks if name not in results)
    for name in hung:
        what = f"no answer in {patience:g} s"
        if name in _WORK:
            results[name] = [warn(name, what, f"this machine is busy: {_WORK[name]}")]
        else:
            advice = "see whether it is overloaded, or swallowed by a firewall"
            results[name] = [fault(name, what, advice)]
    findings = [_clean(finding) for name in checks for finding in results[name]]
    return Report(tuple(findings), hung)


def _clean(finding: Finding) -> Finding:
    """No password and no address, whoever said it."""
    steps = tuple((what, _masked(found), took) for what, found, took in finding.steps)
    return replace(finding, found=_masked(finding.found), steps=steps)


def _masked(text: str) -> str:
    """On one line; a URL keeps its user's name, which tells whose password is wrong."""
    return " ".join(urls.mask(w) if "://" in w else mask_text(w) for w in text.split())


def _configuration(said: Config, complaints: Sequence[str]) -> list[Finding]:
    keys = read_keys(said.dkim)
    wrong = [*complaints, *(str(one) for one in keys.faults)]
    name = "configuration"
    out = [fault(name, one, "mend it; see mailgate config check") for one in wrong]
    for one in (*warnings(said), *keys.warnings):
        out.append(warn(name, one, "change it unless it is meant"))
    return out or [good(name, "nothing is wrong or dangerous")]


def _broker(config: Config) -> list[Finding]:
    url = config.intake.url or config.broker.url or ""
    out = _broker_at(url, config.intake.queue)
    out += _own_queues(url, config)
    rings = config.broker.url or ""
    if rings != url:
        out += _broker_at(rings, config.intake.queue)
    return out


def _own_queues(url: str, config: Config) -> list[Finding]:
    """The queues that are one producer's own."""
    out: list[Finding] = []
    for name, whose in config.queues.items():
        try:
            if urls.is_redis(url):
                depths = inboxes(url, [name])
                out += [verdicts.own(d.queue, whose, d.waiting) for d in depths if not d.fault]
            else:
                seen = rabbit.look(url, name)
                out += [replace(one, found=f"{one.found} (of {whose})")
                        for one in verdicts.queue(name, seen)]  # fmt: skip
        except OSError:
            break  # the check of the broker says so
    return out


def _broker_at(url: str, queue_name: str) -> list[Finding]:
    at = urls.mask(url)
    try:
        if urls.is_redis(url):
            return verdicts.redis("broker", at, asyncio.run(store.look(url)))
        return verdicts.rabbitmq(at, queue_name, rabbit.look(url, queue_name))
    except OSError as error:
        found = f"cannot be reached at {at}: {error}"
        return [fault("broker", found, "start it, or correct broker.url and its password")]


def _limiter(config: Config, url: str) -> list[Finding]:
    if url == urls.JOURNAL_WORD:
        return [good("limiter", "the permits are kept in the journal")]
    at = urls.mask(url)
    try:
        seen = asyncio.run(store.look(url))
    except OSError as error:
        found = f"cannot be reached at {at}: {error}"
        if url == config.broker.url:
            found = "the permits are kept in the broker, which cannot be reached"
        advice = "start it, or correct its URL: what has a limit waits until then"
        return [fault("limiter", found, advice)]
    skew = verdicts.clock("the limiter's clock", seen.ahead)
    if url == config.broker.url:
        return [good("limiter", "the permits are kept in the broker"), skew]
    return [*verdicts.redis("limiter", at, seen), skew]


def _journal(config: Config) -> list[Finding]:
    url = config.journal.url or ""
    at = urls.mask(url)
    try:
        seen = books.look(url)
    except JournalAway as error:
        found = f"cannot be reached at {at}: {error}"
        missing = "there is no file" in str(error)
        advice = "mailgate db upgrade" if missing else "correct journal.url and its password"
        return [fault("journal", found, f"run {advice}" if missing else f"start it, or {advice}")]
    out = verdicts.journal(at, seen)
    if not seen.behind and (older := _set_back(config, url)):
        out.append(fault("journal", older, "run mailgate db restored: workers wait for it"))
    if not url.startswith("sqlite"):
        out.append(verdicts.clock("the journal's clock", seen.ahead))
    return out


def _set_back(config: Config, url: str) -> str:
    """How the journal is older than this host knows it."""
    mark = Watermark(config.state_dir.resolve())
    with contextlib.closing(Database(url, hot=False)) as database:
        return database.read_now(mark.set_back)


def _people(config: Config) -> list[Finding]:
    try:
        seen = books.population(config.journal.url or "", config.worker.lease)
    except Exception:  # noqa: BLE001 - the check of the journal says why
        return [warn("workers", "the journal does not tell who is alive", "mend the journal")]
    return verdicts.people(seen)


def _events(config: Config) -> list[Finding]:
    """Whether producers are told, and the broker for it where it is another."""
    if not config.events.enabled:
        return [good("events", "producers are told nothing (events.enabled)")]
    try:
        seen = books.untold(config.journal.url or "")
    except Exception:  # noqa: BLE001 - the check of the journal says why
        return [warn("events", "the journal does not tell what waits", "mend the journal")]
    url = config.events_url
    out = verdicts.events(seen, urls.mask(url))
    if url not in (config.intake.url, config.broker.url):
        out += [replace(one, check="events") for one in _broker_at(url, config.intake.queue)]
    return out


def _disk(config: Config, free: Free) -> list[Finding]:
    """Where mailgate writes on this machine: its state, and SQLite's file."""
    places = [config.state_dir.absolute()]
    url = config.journal.url or ""
    if url.startswith("sqlite:///"):
        places.append(Path(url.removeprefix("sqlite:///").partition("?")[0]).parent)
    there = dict.fromkeys(_existing(place) for place in places)
    return [verdicts.disk(str(place), free(place)) for place in there]


def _existing(place: Path) -> Path:
    return next(one for one in (place, *place.parents) if one.exists())


def _relay(name: str, relay: Relay, password: Secret | None, patience: float) -> list[Finding]:
    soon = 0.8 * patience
    hasty = {
        "connect_timeout": min(soon, relay.connect_timeout),
        "command_timeout": min(soon, relay.command_timeout),
    }
    if relay.username and password is None:
        return [fault(f"relay {name}", "there is no password to log in with", "see configuration")]
    try:
        seen = asyncio.run(look_at_relay(relay.model_copy(update=hasty), password))
    except OSError as error:
        reason = error.strerror or str(error)
        return [fault(f"relay {name}", f"ca_file cannot be read: {reason}", "correct ca_file")]
    return [verdicts.relay(name, seen)]


def _templates(config: Config) -> list[Finding]:
    try:
        roots = (*config.templates.path, built_in_root())
        catalogue = Catalogue.load(roots, default_locale=config.default_locale)
    except FileNotFoundError as error:
        return [fault("templates", str(error), "correct templates.path")]
    out = []
    for name in catalogue.names():
        found = catalogue.get(name)
        if isinstance(found, Broken):
            advice = f"mend it: mailgate templates check {name}; its mail is held until then"
            out.append(fault("templates", f"{name} is broken: {found.error}", advice))
    if not out:
        out.append(good("templates", f"{len(catalogue.names())} templates load"))
    return out


def _versions() -> list[Finding]:
    installed = {}
    for name in _LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        requires = metadata.requires("mailgate") or []
    except metadata.PackageNotFoundError:
        requires = []
    base = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    tls = " ".join(ssl.OPENSSL_VERSION.split()[:2])
    return [*verdicts.versions(requires, installed), good("versions", f"{base}, {tls}")]
