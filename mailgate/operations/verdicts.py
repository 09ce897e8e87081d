"""What is well and what is not, judged from what each room found.

Owns the thresholds of ``mailgate doctor`` and its sentences: what was found, and what to
do about it. Pure: asks nothing and nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from packaging.requirements import InvalidRequirement, Requirement

from mailgate.intake.look import RabbitLook
from mailgate.journal.look import JournalLook, Population, Untold
from mailgate.limits.look import RedisLook
from mailgate.smtp.check import Look

#: Seconds that two clocks may differ; the longer, beside which mail expires unsent.
_SKEW, _FAR = 2.0, 60.0
#: Seconds after which an event should have been published.
_UNTOLD = 60.0
#: Bytes free: below the first there is little room left, below the second none.
_LITTLE, _NONE = 2 * 2**30, 200 * 2**20
#: The share of its memory above which a Redis is nearly full.
_FULL = 0.9
#: The oldest that serve (Redis 6.2: automatic claims, and list moves).
_REDIS = (6, 2)
_RABBITMQ = (3, 10)


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``advice`` is what to do, "" when all is well.

    ``steps`` are (what, what was found, seconds), where it was done in steps.
    """

    check: str
    level: Level
    found: str
    advice: str = ""
    steps: tuple[tuple[str, str, float], ...] = ()


def good(check: str, found: str) -> Finding:
    return Finding(check, Level.OK, found)


def warn(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Level.WARN, found, advice)


def fault(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Level.FAULT, found, advice)


def redis(check: str, at: str, seen: RedisLook) -> list[Finding]:
    """A Redis as broker or as store of the permits; ``at`` is its masked URL."""
    out = [good(check, f"{seen.program} {seen.version} answers at {at}")]
    if _version(seen.version) < _REDIS and seen.program == "Redis":
        out.append(fault(check, f"it is older than {_dotted(_REDIS)}", "update the server"))
    if seen.replica:
        out.append(fault(check, "it is a read-only replica", "name the primary in the URL"))
    if seen.policy != "noeviction":
        out.append(
            fault(
                check,
                f"maxmemory-policy is {seen.policy or 'unknown'}: mail may be evicted",
                "set maxmemory-policy noeviction on the server",
            )
        )
    if seen.most and seen.memory > _FULL * seen.most:
        share = f"{seen.memory / seen.most:.0%} of maxmemory is used"
        out.append(warn(check, share, "raise maxmemory: a full server refuses what is published"))
    if seen.keeps_badly:
        out.append(fault(check, "its append-only file cannot be written", "look at its disk"))
    elif not seen.keeps and check == "broker":
        out.append(
            warn(
                check,
                "appendonly is off: its restart loses what intake has not taken yet",
                "set appendonly yes on the server",
            )
        )
    return out + silent(check, seen.silent)


def rabbitmq(at: str, name: str, seen: RabbitLook) -> list[Finding]:
    check = "broker"
    out = [good(check, f"RabbitMQ {seen.version} answers at {at}")]
    if _version(seen.version) < _RABBITMQ:
        out.append(warn(check, f"it is older than {_dotted(_RABBITMQ)}", "update the server"))
    return [*out, *queue(name, seen), *silent(check, seen.silent)]


def own(key: str, producer: str, waiting: int | None) -> Finding:
    """A producer's own stream or list on Redis; one that nobody used yet is empty."""
    return good("broker", f"{key} of {producer}: {waiting or 0} wait in it")


def queue(queue: str, seen: RabbitLook) -> list[Finding]:
    """One queue on RabbitMQ that intake takes from."""
    check = "broker"
    out: list[Finding] = []
    match seen.kind:
        case "":
            out.append(good(check, f"there is no queue {queue} yet; intake makes it"))
        case "quorum":
            out.append(good(check, f"queue {queue} is a quorum queue, {seen.ready} wait in it"))
        case "unknown":
            what = f"what kind queue {queue} is cannot be asked"
            out.append(warn(check, what, "allow this user to configure and read the queue"))
        case _:
            out.append(
                warn(
                    check,
                    f"queue {queue} is no durable quorum queue: a node that fails loses its mail",
                    "stop producers, let intake empty it, delete it, and let intake make it anew",
                )
            )
    return out


def silent(check: str, many: int) -> list[Finding]:
    if not many:
        return []
    return [warn(check, f"{many} of its servers did not answer", "look at those named first")]


def journal(at: str, seen: JournalLook) -> list[Finding]:
    check = "journal"
    out = [good(check, f"{seen.program} {seen.version} answers at {at}")]
    if seen.behind:
        what = f"its schema is at {seen.behind}, this version needs {seen.latest}"
        out.append(fault(check, what, "run mailgate db upgrade"))
    else:
        out.append(good(check, f"its schema is current ({seen.latest}), no migration is pending"))
    if seen.unwritable:
        what = f"it cannot be written: {seen.unwritable}"
        out.append(fault(check, what, "name the primary, or mend its disk and its rights"))
    for one in seen.unsafe:
        advice = "run mailgate db upgrade" if seen.program == "SQLite" else "set it to on"
        out.append(fault(check, f"{one}: a crash may lose accepted mail", advice))
    return out


def clock(what: str, ahead: float) -> Finding:
    """Another's clock less ours, in seconds."""
    found = f"{what} is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'} of this host"
    if abs(ahead) < _SKEW:
        return good("clock", f"{what} agrees with this host to {abs(ahead):.2f} s")
    advice = "have both hosts set their clocks by NTP"
    return (fault if abs(ahead) >= _FAR else warn)("clock", found, advice)


def disk(place: str, free: int) -> Finding:
    found = f"{free / 1e9:.1f} GB free at {place}"
    if free >= _LITTLE:
        return good("disk", found)
    if free >= _NONE:
        return warn("disk", found, "free some space: journal, spools and logs grow there")
    return fault("disk", found, "free some space now: without it no mail is taken or sent")


#: Beat asks for a clean-up each hour; after so many seconds without one it does not.
_UNCLEAN = 3 * 3600.0


def people(seen: Population) -> list[Finding]:
    """Who works, and what waits for a person."""
    if seen.alive:
        out = [good("workers", f"{seen.alive} worker processes are alive")]
    elif seen.silent:
        what = f"none is alive; {seen.silent} ended without a word"
        out = [fault("workers", what, "start mailgate worker: nothing is delivered")]
    else:
        out = [warn("workers", "none is alive", "start mailgate worker to deliver mail")]
    if seen.alive and seen.silent:
        what = f"{seen.silent} ended without a word"
        out.append(warn("workers", what, "read their logs; the others take over what they held"))
    if seen.parked:
        what = f"{seen.parked} documents are parked"
        out.append(warn("parked", what, "see mailgate parked list, then replay or discard them"))
    else:
        out.append(good("parked", "nothing is parked"))
    hours = seen.unclean / 3600
    if seen.unclean > _UNCLEAN:
        what = f"nothing was cleaned up for {hours:.0f} hours"
        advice = "start mailgate beat, which asks for it each hour, or run mailgate clean"
        out.append(warn("clean-up", what, advice))
    else:
        out.append(good("clean-up", "it is not overdue"))
    return out


def events(seen: Untold, at: str) -> list[Finding]:
    """Whether producers are told what becomes of their mail; ``at`` is the masked URL."""
    check = "events"
    out = []
    if seen.age > _UNTOLD:
        what = f"{seen.count} are not published, the oldest for {seen.age:.0f} s"
        advice = f"is {at} up, and mailgate intake or a worker running? Their log says why"
        out.append(warn(check, what, advice))
    for producer in seen.refused:
        what = f"the broker refuses those of {producer}, while others' go out"
        advice = (
            f"have its queue emptied, or see what key mailgate:events:{producer} is; they are "
            "tried again every quarter of a minute"
        )
        out.append(warn(check, what, advice))
    return out or [good(check, f"producers are told at {at}")]


#: What to do about a relay, by the error class of the look at it.
_RELAY = {
    "auth_refused": "check username and password",
    "tls_certificate": "name the relay as its certificate does, or its authority in ca_file",
    "tls_failed": "check that security and port belong together: tls 465, starttls 587 or 25",
    "starttls_not_offered": "use security 'tls' and its port, usually 465",
    "auth_needs_tls": "set security to starttls or tls",
    "auth_unavailable": "choose a mechanism that the relay offers, or the port for submission",
    "connect_failed": "check host and port, and that a firewall lets this machine out",
    "connect_timeout": "check host and port, and that a firewall lets this machine out",
    "dns_failed": "check the spelling of host, and this machine's DNS",
}


def relay(name: str, seen: Look) -> Finding:
    check = f"relay {name}"
    steps = tuple((step.phase.value, step.found, step.took) for step in seen.steps)
    failure = seen.failure
    if failure is None:
        return Finding(
            check, Level.OK, f"takes mail: ready in {seen.took * 1000:.0f} ms", steps=steps
        )
    found = f"failed at {failure.phase.value}: {failure.error_class} ({failure.reply})"
    advice = _RELAY.get(failure.error_class or "", f"try mailgate relays test {name}")
    return Finding(check, Level.FAULT, found, advice, steps)


def versions(requires: Iterable[str], installed: Mapping[str, str]) -> list[Finding]:
    """What is installed, against what this version of mailgate asks for."""
    out = []
    for line in requires:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
        version = installed.get(wanted.name)
        if version is None or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            what = f"{wanted.name} is {version}; mailgate needs {wanted.specifier}"
            out.append(fault("versions", what, f'pip install "{wanted.name}{wanted.specifier}"'))
    shown = ", ".join(f"{name} {version}" for name, version in installed.items())
    return [*out, good("versions", shown)]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
