"""Digests whose time has come: what each shows, and the loop that closes them.

Owns the choice of a digest's items (pure) and the order look → render subjects → lock →
choose → write. Each worker process looks once a second by itself; which of them closes a
digest, and whether another is killed meanwhile, changes nothing. Never sends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NoReturn

from mailgate import failpoints
from mailgate.config.digests import Digest
from mailgate.config.shape import Config
from mailgate.dispatch.throttles import WHOLE, charges
from mailgate.journal.database import Connection, Database, JournalAway
from mailgate.journal.digests import Closed, Content, Digests, Item, Mail, Open
from mailgate.journal.letters import digest_text
from mailgate.journal.suppressions import Stop
from mailgate.journal.throttle import Charge
from mailgate.model.ids import Ids
from mailgate.model.message import Letter
from mailgate.model.state import Lane

_log = logging.getLogger("mailgate.digests")

#: Seconds between two looks.
EVERY = 1.0
#: Digests closed in one transaction: others wait for it.
CHUNK = 20
#: A digest's data (characters of JSON): as much as a producer may say in one message.
MOST = 256 * 1024

#: A letter's subject, or None where it cannot be rendered.
SubjectOf = Callable[[Letter], str | None]


@dataclass(frozen=True, slots=True)
class Choice:
    """Of the items of a digest: those that count, those they replace, those that are over."""

    live: Sequence[Item]
    replaced: Sequence[Item]
    expired: Sequence[Item]


def choose(items: Sequence[Item], now: int) -> Choice:
    """Which items count: of several with one name the latest, and none whose time is over.

    ``items`` are the oldest first, and so is what is given.
    """
    expired = [i for i in items if i.expires_at is not None and i.expires_at <= now]
    over = {i.recipient_id for i in expired}
    current = [i for i in items if i.recipient_id not in over]
    last = {i.name: i.recipient_id for i in current if i.name is not None}
    live = [i for i in current if i.name is None or last[i.name] == i.recipient_id]
    kept = {i.recipient_id for i in live}
    return Choice(live, [i for i in current if i.recipient_id not in kept], expired)


def ordered(live: Sequence[Item], digest: Digest, field: Callable[[int, str], Any]) -> list[Item]:
    """The items as the digest shows them; ``field`` gives one's value of a field.

    By a field numbers come before text, and what lacks it last; equal ones newest first.
    """
    newest = list(reversed(live))
    if digest.order == "newest":
        return newest
    if digest.order == "oldest":
        return list(live)
    down, name = digest.order.startswith("-"), digest.order.removeprefix("-")
    values = {i.recipient_id: field(i.recipient_id, name) for i in live}
    numbers = [i for i in newest if isinstance(values[i.recipient_id], int | float)]
    texts = [i for i in newest if isinstance(values[i.recipient_id], str)]
    known = {i.recipient_id for i in (*numbers, *texts)}
    for some in (numbers, texts):
        some.sort(key=lambda i: values[i.recipient_id], reverse=down)
    rest = [i for i in newest if i.recipient_id not in known]
    return [*texts, *numbers, *rest] if down else [*numbers, *texts, *rest]


def _read(live: Sequence[Item], section: Digest, throttled: bool) -> list[Item]:
    """Those whose content decides what is shown, and the newest, which the mail goes by."""
    if section.order == "oldest":
        return [*live[: section.cap], *live[section.cap :][-1:]]
    by_field = section.order != "newest" and not throttled
    return list(live[-section.max_items if by_field else -section.cap :])


def fitting(values: Sequence[Any], most: int = MOST) -> list[Any]:
    """The first of ``values``, as many as make no more than ``most`` characters of JSON."""
    size = 0
    for n, value in enumerate(values):
        size += len(json.dumps(value, ensure_ascii=False))
        if n and size > most:
            return list(values[:n])
    return list(values)


class Closer:
    """Closes the digests that are due. ``subject_of`` renders a letter's subject.

    ``ring`` is told the lanes in which mail waits then.
    """

    def __init__(
        self,
        database: Database,
        config: Config,
        secret: bytes,
        subject_of: SubjectOf,
        ring: Callable[[Lane], None],
    ) -> None:
        self._database, self._config, self._secret = database, config, secret
        self._subject_of, self._ring = subject_of, ring
        self._digests = Digests(database)
        self._ids = Ids(random.random)

    def adopt(self, config: Config) -> None:
        """Go by another configuration."""
        self._config = config

    def go(self) -> int:
        """Close up to ``CHUNK`` digests; gives how many were due. Blocks.

        Raises ``JournalAway``, and then none of them is closed.
        """
        now = self._database.now()
        due = self._database.read_now(lambda c: self._digests.due(c, now, CHUNK))
        if not due:
            return 0
        wanted: dict[int, Sequence[Charge]] = {d.id: () for d in due}
        subjects: dict[int, str] = {}
        for digest in due:
            if digest.throttled:
                # What is rendered is rendered before anything is locked.
                wanted[digest.id] = self._foresee(digest, subjects)

        def work(c: Connection) -> tuple[int, frozenset[Lane]]:
            now = self._database.now()
            mine = self._digests.lock(c, wanted, now)
            closing = self._close(c, mine, subjects, wanted, now)
            lanes = self._digests.close(c, closing, now, lambda: self._ids.take(now))
            if closing:
                failpoints.hit("digest.before_commit")
            return len(closing), lanes

        count, lanes = self._database.run_now(work)
        if count:
            failpoints.hit("digest.after_commit")
        for lane in lanes:
            self._ring(lane)
        if count:
            _log.info("digests were closed", extra={"count": count})
        return len(due)

    def _section(self, digest: Open) -> Digest:
        """How a digest is configured; the defaults, if it no longer is."""
        return self._config.digests.get(digest.name, Digest())

    def _foresee(self, digest: Open, subjects: dict[int, str]) -> Sequence[Charge]:
        """Render what a digest of whole mails will say; gives the charges of its mail."""
        now, section = self._database.now(), self._section(digest)

        def look(c: Connection) -> dict[int, Content]:
            [items] = self._digests.items(c, [digest.id], hold=False).values()
            read = _read(choose(items, now).live, section, throttled=True)
            return self._digests.contents(c, [i.recipient_id for i in read])

        contents = self._database.read_now(look)
        for id_, content in contents.items():
            subject = self._subject_of(content.letter)
            if subject:
                subjects[id_] = subject
        if not contents:
            return ()
        newest = contents[max(contents)]
        # A mail that is dropped would take all of them with it: it waits.
        return [replace(c, on_limit="defer") for c in charges(newest, self._config, self._secret)]

    def _close(
        self,
        c: Connection,
        mine: Sequence[Open],
        subjects: Mapping[int, str],
        charged: Mapping[int, Sequence[Charge]],
        now: int,
    ) -> list[Closed]:
        """How each of these ends. A few statements for all of them."""
        waiting = self._digests.items(c, [d.id for d in mine])
        choices = {d.id: choose(waiting[d.id], now) for d in mine}
        sections = {d.id: self._section(d) for d in mine}
        read = [i for d in mine for i in _read(choices[d.id].live, sections[d.id], d.throttled)]
        contents = self._digests.contents(c, [i.recipient_id for i in read])
        bases = {}
        for digest in mine:
            if live := choices[digest.id].live:
                base = contents[live[-1].recipient_id]
                bases[digest.id] = base, self._config.categories.get(base.stream, "")
        stops = self._digests.stops(c, bases, now)
        return [
            self._closed(
                digest,
                sections[digest.id],
                choices[digest.id],
                contents,
                subjects,
                charged[digest.id],
                stops.get(digest.id),
                now,
            )
            for digest in mine
        ]

    def _closed(
        self,
        digest: Open,
        section: Digest,
        choice: Choice,
        contents: Mapping[int, Content],
        subjects: Mapping[int, str],
        charged: Sequence[Charge],
        stop: Stop | None,
        now: int,
    ) -> Closed:
        if not choice.live:
            return Closed(digest, None, choice.replaced, choice.expired)
        everything = [*choice.live, *choice.replaced]
        if stop is not None:
            return Closed(digest, None, (), choice.expired, everything, stop)

        def value(id_: int) -> Any:
            return _value(contents[id_], section, digest.throttled, subjects.get(id_))

        def field(id_: int, name: str) -> Any:
            found = value(id_) if id_ in contents else None
            return found.get(name) if isinstance(found, dict) else None

        shown = [i for i in ordered(choice.live, section, field) if i.recipient_id in contents]
        told = fitting([value(i.recipient_id) for i in shown[: section.cap]])
        base = contents[choice.live[-1].recipient_id]
        mail = self._mail(digest, section, base, told, len(choice.live) - len(told), now)
        mail = replace(mail, sensitive=any(i.sensitive for i in everything))
        return Closed(digest, mail, everything, choice.expired, charges=charged)

    def _mail(
        self, digest: Open, section: Digest, base: Content, told: list[Any], more: int, now: int
    ) -> Mail:
        data: dict[str, Any] = {**section.data, section.items: told}
        if more:
            data["more"] = more
        stream = self._config.streams.get(base.stream)
        lifetime = stream.expires_after if stream else None
        return Mail(
            content=base,
            template=section.template,
            body=digest_text(
                base.body,
                template=section.template,
                data=data,
                locale=base.locale,
                headers=not digest.throttled,
            ),
            metadata=json.dumps({"digest": digest.name, "digest_key": digest.key}),
            throttle=WHOLE,
            expires_at=None if lifetime is None else now + int(lifetime * 1000),
            sensitive=False,
        )


def _value(content: Content, section: Digest, throttled: bool, subject: str | None) -> Any:
    """What a digest's list has of one item."""
    if throttled:
        words = (content.template or "").replace("_", " ").replace("-", " ")
        said = subject or content.body.get("subject") or words.capitalize() or "–"
        at = datetime.fromtimestamp(content.accepted_at // 1000, UTC)
        return {"text": said[:300], "at": at.isoformat().replace("+00:00", "Z")}
    data = content.data
    items = data.get(section.items)
    if not isinstance(items, list):
        # The section has named its variable otherwise since then.
        items = next((v for v in data.values() if isinstance(v, list)), [])
    return items[0] if items else {}


async def close_when_due(closer: Closer) -> NoReturn:
    """Close what is due, chunk after chunk, and look again each second; until cancelled."""
    while True:
        more = 0
        try:
            more = await asyncio.to_thread(closer.go)
        except JournalAway:
            pass  # who beats the heart says so; the digests stay due
        except Exception as error:  # noqa: BLE001 - items are safe, and the worker goes on
            _log.error("digests could not be closed: %s", type(error).__name__)
        if more < CHUNK:
            await asyncio.sleep(EVERY * (0.9 + 0.2 * random.random()))
