"""Breakers: who gets no mail for a while because mail to it fails.

Owns the state machine. A breaker is *closed*; enough failures in a row *open* it until
a time; then one conversation in the whole cluster may go as a *probe*, and its end
closes the breaker or opens it for longer. Throttling replies also cut the rate, which
recovers by time alone. Pure: time (milliseconds) and randomness come in. Never knows
where the records are kept (``journal.breakers``) or what an outcome means
(``limits.symptoms``).

**One probe.** A record names its probe: a recipient and the token of its claim. Whoever
asks for the next probe says whether that claim still stands; a claim ends in the
transaction that settles or buries it. So there is no time after which a second probe
could run beside a slow first one, and a probe whose process died blocks nobody.

**Late words.** Conversations that were open when the breaker opened still end. While it
is open, only the probe's word counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from mailgate.config.breakers import Breaker, Breakers
from mailgate.config.terms import Rate

#: A wait differs by up to this share, so that what opened together is not probed together.
JITTER = 0.2
#: Throttling replies within this time (ms) are one: their mails were under way together.
TOGETHER = 10_000
#: Failures so long ago (ms) are no longer "in a row".
FORGET = 600_000
#: An open breaker that nobody has probed for so long (ms) is forgotten.
ABANDONED = 86_400_000
#: A probe that learned nothing leaves so much time (ms) to the next.
UNLEARNED = 1_000
#: Whoever asks for so long a wait (seconds) is left alone at once, for at most ``LONGEST``.
AT_ONCE, LONGEST = 3600.0, 7200.0


class Kind(StrEnum):
    RELAY = "relay"
    #: A destination domain as one relay reaches it.
    DOMAIN = "domain"
    #: A From address at one relay: another may well let us use it.
    SENDER = "sender"


class Subject(NamedTuple):
    """Whose health it is; ``name`` is the domain or the address, '' for a relay."""

    kind: Kind
    relay: str
    name: str = ""

    @property
    def key(self) -> str:
        """One text for it, which ``subject`` reads back."""
        return f"{self.kind.value}:{self.relay}:{self.name}"


def subject(key: str) -> Subject:
    kind, relay, name = key.split(":", 2)
    return Subject(Kind(kind), relay, name)


class Sign(StrEnum):
    """What one conversation showed about a subject."""

    OK = "ok"
    #: A failure that counts.
    FAIL = "fail"
    #: The login was refused: it opens by ``breakers.login``.
    LOGIN = "login"
    #: A failure that opens at once, for at least as long as was asked.
    STOP = "stop"
    #: Too fast.
    THROTTLE = "throttle"
    #: The conversation ended before it could show anything.
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Signal:
    """``wait`` is what the reply asked for (seconds); ``pace`` is how many messages a
    minute were getting through, over all workers, as far as is known."""

    sign: Sign
    error_class: str = ""
    code: int = 0
    reply: str = ""
    wait: float = 0.0
    pace: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a subject; times in milliseconds since 1970, 0 for never."""

    #: In a row, while closed.
    failures: int = 0
    #: How often it opened since it last worked; 0: closed.
    opened: int = 0
    since: int = 0
    #: Open: when a probe may go.
    until: int = 0
    #: Recipient and token of the last probe; (0, 0): none yet.
    probe: tuple[int, int] = (0, 0)
    #: The rule by which it opened last.
    login: bool = False
    #: The last failure, and when.
    error_class: str = ""
    code: int = 0
    reply: str = ""
    failed_at: int = 0
    #: Messages a minute when it was cut, and what got through before; 0: not slowed.
    pace: float = 0.0
    before: float = 0.0
    cut_at: int = 0

    @property
    def open(self) -> bool:
        return self.opened > 0


def step(
    record: Record,
    kind: Kind,
    signal: Signal,
    *,
    probe: bool,
    policy: Breakers,
    now: int,
    random: Callable[[], float],
) -> Record:
    """The record after ``signal``; ``probe`` tells that it is the word of its probe."""
    sign = signal.sign
    if record.open:
        if not probe:
            return record
        if sign is Sign.NOTHING:
            wait = max(UNLEARNED, int(min(signal.wait, LONGEST) * 1000))
            return replace(record, until=max(record.until, now + wait), probe=(0, 0))
        if sign is Sign.OK:
            return replace(record, failures=0, opened=0, since=0, until=0, probe=(0, 0))
        if sign is Sign.THROTTLE:
            record = _cut(record, signal, policy, now)
        return _opened(_failed(record, signal, now), kind, signal, policy, now, random)
    if sign is Sign.NOTHING:
        return record
    if sign is Sign.OK:
        return replace(record, failures=0)
    again = now - record.cut_at < TOGETHER
    if sign is Sign.THROTTLE:
        if again:
            return record
        record = _cut(record, signal, policy, now)
    record = _failed(record, signal, now)
    at_once = sign in (Sign.LOGIN, Sign.STOP)
    if at_once or record.failures >= _rule(kind, sign, policy).failures:
        return _opened(record, kind, signal, policy, now, random)
    return record


def probed(
    record: Record, recipient_id: int, token: int, *, alive: bool, now: int
) -> Record | None:
    """The record with this claim as its probe; None when none may go now.

    ``alive`` tells whether the claim of ``record.probe`` still stands.
    """
    if not record.open or alive or now < record.until:
        return None
    return replace(record, probe=(recipient_id, token))


def hurried(record: Record, now: int) -> Record:
    """An operator says that it is mended: the probe may go at once."""
    return replace(record, until=min(record.until, now))


def rate(record: Record, policy: Breakers, now: int) -> Rate | None:
    """How fast mail may go since it was slowed; None when it is free.

    It doubles with each ``policy.recover``, and is free once it would be above what got
    through before: nothing has to be written for a recovery.
    """
    if not record.pace:
        return None
    steps = min(max(0, now - record.cut_at) // _ms(policy.recover), 40)
    pace = record.pace * 2.0**steps
    if steps and pace > record.before:
        return None
    return Rate(int(pace / 60), 1.0) if pace >= 120 else Rate(max(1, int(pace)), 60.0)


def worth_until(record: Record, policy: Breakers, now: int) -> int:
    """Until when there is anything to remember; what is past then is as good as new."""
    if record.open:
        return max(record.until, now) + ABANDONED
    until = record.failed_at + FORGET if record.failures else 0
    if record.pace:
        steps = 1
        while record.pace * 2.0**steps <= record.before and steps < 40:
            steps += 1
        until = max(until, record.cut_at + steps * _ms(policy.recover))
    return until


def _rule(kind: Kind, sign: Sign, policy: Breakers) -> Breaker:
    if sign is Sign.LOGIN:
        return policy.login
    by_kind = {Kind.RELAY: policy.relay, Kind.DOMAIN: policy.domain, Kind.SENDER: policy.sender}
    return by_kind[kind]


def _failed(record: Record, signal: Signal, now: int) -> Record:
    stale = not record.open and now - record.failed_at > FORGET
    return replace(
        record,
        failures=1 if stale else record.failures + 1,
        error_class=signal.error_class,
        code=signal.code,
        reply=signal.reply,
        failed_at=now,
    )


def _opened(
    record: Record,
    kind: Kind,
    signal: Signal,
    policy: Breakers,
    now: int,
    random: Callable[[], float],
) -> Record:
    login = signal.sign is Sign.LOGIN
    rule = _rule(kind, signal.sign, policy)
    # Another cause has a schedule of its own.
    times = record.opened if login is record.login else 0
    # The exponent is capped before the power is taken.
    wait = min(rule.first * 2.0 ** min(times, 40), rule.cap)
    wait = max(wait, min(signal.wait, LONGEST))
    wait *= 1 + JITTER * (2 * random() - 1)
    return replace(
        record,
        opened=times + 1,
        since=record.since if record.open else now,
        until=now + _ms(wait),
        probe=(0, 0),
        login=login,
    )


def _cut(record: Record, signal: Signal, policy: Breakers, now: int) -> Record:
    slowest = policy.slowest.limit * 60 / policy.slowest.period
    current = rate(record, policy, now)
    going = current.limit * 60 / current.period if current else signal.pace
    return replace(
        record,
        pace=max(slowest, going / 2),
        before=max(going, record.before if current else 0.0, slowest),
        cut_at=now,
    )


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
