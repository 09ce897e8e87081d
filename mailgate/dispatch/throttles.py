"""Which throttle windows a recipient's mail must fit into.

Owns the way from rules to windows: what selects a message, what is counted together,
and what bypasses what. Pure; never counts (``journal.throttle`` does).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from mailgate.config.digests import THROTTLED, Digest
from mailgate.config.shape import Config
from mailgate.config.streams import Stream
from mailgate.config.throttles import Throttle, ThrottleRule
from mailgate.journal.throttle import Charge, OnLimit, charge_key

#: What a message says for itself: key, limit, window (ms), on_limit, replace.
Own = tuple[str, int | None, int | None, OnLimit, bool]


def own_text(own: Own) -> str:
    """As it stands in the journal, beside its message."""
    return json.dumps(own)


#: What the mail of a digest says: nothing, and it goes into no other digest.
WHOLE = own_text(("", None, None, "defer", False))


class Mail(Protocol):
    """What rules look at."""

    @property
    def email(self) -> str: ...
    @property
    def producer(self) -> str: ...
    @property
    def stream(self) -> str: ...
    @property
    def template(self) -> str | None: ...
    @property
    def tags(self) -> str | None: ...
    @property
    def throttle(self) -> str | None: ...
    @property
    def charged(self) -> bool: ...


def charges(head: Mail, config: Config, secret: bytes) -> tuple[Charge, ...]:
    """The windows that ``head`` must fit into; none when it was charged before.

    A retry or a resend is the same mail to its recipient and counts once. The key of a
    count says nothing of limit and window: all windows of a rule share one count, and
    one that is changed goes on with what was sent.
    """
    if head.charged:
        return ()
    own: Own | None = tuple(json.loads(head.throttle)) if head.throttle else None
    stream = config.streams.get(head.stream)
    key = partial(charge_key, secret, head.email.casefold())
    replaced = own is not None and own[4]
    found: list[Charge] = []
    for name, rule in _rules(head, stream, config.throttles, replaced):
        found += _windows(head, name, rule, own[0] if own else "", key, config)
    if replaced or (stream is not None and stream.bypass_throttles):
        cap = (stream or Stream()).hard_cap
        name = key("cap", head.stream)
        found.append(Charge(name, cap.limit, _ms(cap.period), "defer", "hard cap"))
    if own is not None:
        said, limit, window, on_limit, _ = own
        if limit is not None and window is not None:
            name = key("own", head.producer, said)
            digest = _digest(on_limit, None, config)
            found.append(Charge(name, limit, window, on_limit, "the message's own", digest))
    if head.throttle == WHOLE:
        found = [replace(c, on_limit="defer") if c.on_limit == "digest" else c for c in found]
    return tuple(found)


def _digest(on_limit: str, name: str | None, config: Config) -> tuple[str, Digest] | None:
    """The section of the digest that takes what is over."""
    if on_limit != "digest":
        return None
    name = name or THROTTLED
    return name, config.digests[name]


def _rules(
    head: Mail, stream: Stream | None, throttles: Mapping[str, Throttle], replaced: bool
) -> Iterator[tuple[str, ThrottleRule]]:
    """The rules that this mail meets, by name; those of a stream share its name."""
    if replaced:
        return
    for rule in stream.throttle if stream else ():
        yield f"streams.{head.stream}", rule
    if stream is None or not stream.bypass_throttles:
        for name, throttle in throttles.items():
            if _selects(throttle, head):
                yield name, throttle


def _selects(rule: Throttle, head: Mail) -> bool:
    """Whether each of the rule's selectors names this mail, or says nothing."""
    if rule.streams and head.stream not in rule.streams:
        return False
    if rule.producers and head.producer not in rule.producers:
        return False
    if rule.templates and head.template not in rule.templates:
        return False
    tags: list[str] = json.loads(head.tags) if rule.tags and head.tags else []
    return not rule.tags or not set(rule.tags).isdisjoint(tags)


def _windows(
    head: Mail,
    name: str,
    rule: ThrottleRule,
    said: str,
    key: Callable[..., str],
    config: Config,
) -> list[Charge]:
    together: Any = ()
    match rule.per:
        case "recipient+template":
            together = (head.template or "",)
        case "recipient+producer":
            together = (head.producer,)
        case "recipient+key":
            # A key is a producer's own word: another's equal one is another key.
            together = (head.producer, said)
    count = key("rule", name, rule.per, *together)
    digest = _digest(rule.on_limit, rule.digest, config)
    return [
        Charge(count, limit, _ms(window), rule.on_limit, name, digest)
        for limit, window in rule.windows()
    ]


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
