"""A malicious relay: whatever it says, and whenever, a conversation ends in one outcome.

Owns an event loop without a network and with a clock of its own, so that hours of waiting
take no time, and the script by which the relay plays.
"""

from __future__ import annotations

import asyncio
import selectors
import ssl
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from bench.fuzz import Bound, hold, noted
from mailgate.config.relays import Relay
from mailgate.model.message import Envelope
from mailgate.model.outcome import Kind, Outcome, Scope
from mailgate.smtp.classify import TABLE
from mailgate.smtp.opening import SetupFailed, tls_context
from mailgate.smtp.reply import MAX_LINE, MAX_REPLY
from mailgate.smtp.session import ONE_WRITE, Session

#: What one conversation may take, by the bytes that the relay says.
BOUND = Bound(seconds=1.0, each=1 / 50_000, most=5.0, memory=512, input=1 << 17)

#: Between what the relay says on one occasion and on the next.
TURN = b"\xfe"
_PASSWORD = "open-sesame"
_WAITS = {"connect_timeout": "30s", "command_timeout": "60s", "dot_timeout": "120s"}
_SMALL = Envelope("a@x.org", "b@y.org", b"Subject: x\r\n\r\n.dot\r\n")
_LARGE = Envelope("a@x.org", "b@y.org", b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * ONE_WRITE)
#: Everything that a conversation can wait for, one after the other, twice (seconds).
_LONGEST = 2 * (30 + 14 * 60 + 2 * 120 + len(_LARGE.content) / 4096)


def _relay(**how: Any) -> Relay:
    return Relay.model_validate({"host": "192.0.2.1", "port": 25, **_WAITS, **how})


RELAYS = [
    _relay(security="none"),
    _relay(security="starttls", verify=False),
    *(
        _relay(username="me", password_env="P", auth=[auth], verify=False)
        for auth in ("plain", "login", "cram-md5")
    ),
    _relay(username="me", token_file="/t", auth=["xoauth2"], verify=False),
]
TLS = [tls_context(relay) for relay in RELAYS]


class Stuck(AssertionError):
    """Nothing will ever happen, and somebody waits for it."""


class _Clock(selectors.SelectSelector):
    """Nothing to select: it goes at once to when something is due."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck
        self.now += timeout
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose one server is a script."""

    def __init__(self, script: list[bytes]) -> None:
        self.clock = _Clock()
        super().__init__(self.clock)
        self.script = script
        self.line: Line | None = None
        #: Bytes that the relay has said.
        self.heard = 0

    def time(self) -> float:
        return self.clock.now

    async def create_connection(self, make: Callable[[], Any], *_: Any, **__: Any) -> Any:  # type: ignore[override]
        protocol = make()
        self.line = Line(self, protocol)
        protocol.connection_made(self.line)
        self.line.turn()
        return self.line, protocol

    async def start_tls(self, transport: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        transport.secured = True
        return transport


class Line(asyncio.Transport):
    """The connection, and the relay at its end."""

    def __init__(self, loop: Loop, protocol: Any) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self.secured = False
        self.closed = False
        #: What went out, and whether it was in clear.
        self.written: list[tuple[bool, bytes]] = []
        #: What came in since the last thing went out.
        self.since = b""

    def write(self, data: Any) -> None:
        self.written.append((self.secured, bytes(data)))
        self.since = b""
        self.turn()

    def turn(self) -> None:
        """It is the relay's turn: the first byte says how it speaks."""
        if not self._loop.script:
            return
        said = self._loop.script.pop(0)
        how, words = (said[0], said[1:]) if said else (0, b"")
        kind, more = how & 7, how >> 3
        later = self._loop.call_later
        match kind:
            case 0 | 7:
                self._loop.call_soon(self.say, words)
            case 1:
                for byte in words:
                    self._loop.call_soon(self.say, bytes([byte]))
            case 2:
                later(more * 8.0, self.say, words)
            case 3:
                for place, byte in enumerate(words):
                    later(place * (more + 1.0), self.say, bytes([byte]))
            case 4:
                self._loop.call_soon(self.say, words)
                later(more * 8.0, self.end)
            case 5:
                self._loop.call_soon(self.say, words)
                later(more * 8.0, self.drop)
            case 6:
                # One write of the relay's at a time is at most this (asyncio reads 256 KiB).
                most = 1 << (8 + more % 11)
                self._loop.call_soon(self.say, (words * (most // (len(words) or 1) + 1))[:most])
        if kind == 7:
            self._protocol.pause_writing()
            later(more * 16.0, self.resume)

    def say(self, words: bytes) -> None:
        if not self.closed and words:
            self.since += words
            self._loop.heard += len(words)
            self._protocol.data_received(words)
            kept = len(self._protocol._reader._rest) + self._protocol._reader._size
            hold(kept <= (1 << 18) + MAX_REPLY + MAX_LINE, "what is kept of a reply has an end")

    def resume(self) -> None:
        if not self.closed:
            self._protocol.resume_writing()

    def end(self) -> None:
        if not self.closed:
            self._protocol.eof_received()

    def drop(self) -> None:
        if not self.closed:
            self.closed = True
            self._protocol.connection_lost(ConnectionResetError("reset"))

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    close = abort

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object" and self.secured:
            return SimpleNamespace(version=lambda: "TLSv1.3", getpeercert=dict)
        return {"peername": ("192.0.2.1", 25), "sockname": ("192.0.2.9", 9)}.get(name, default)


class Notes:
    """What a conversation has told of itself."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def dot(self) -> None:
        self.said.append("dot")

    def accepted(self) -> None:
        self.said.append("accepted")

    def refused(self) -> None:
        self.said.append("refused")


def run(data: bytes) -> str:
    """How the (last) message ended: a word."""
    how, script = (data[0], data[1:].split(TURN)) if data else (0, [])
    number = how % len(RELAYS)
    loop = Loop(script)
    try:
        word = loop.run_until_complete(_converse(loop, number, large=how & 64 > 0))
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    noted(loop.heard)
    hold(loop.time() <= _LONGEST, f"a conversation ends in time, and took {loop.time():.0f} s")
    return word


async def _converse(loop: Loop, number: int, *, large: bool) -> str:
    relay, tls = RELAYS[number], TLS[number]
    password = _PASSWORD if relay.username else None
    try:
        session = await Session.open(relay, cast("ssl.SSLContext", tls), password=password)
    except SetupFailed as failed:
        _sound(failed.outcome)
        hold(failed.outcome.kind not in (Kind.SENT, Kind.UNCERTAIN), "nothing was said of a mail")
        _in_clear(loop)
        hold(loop.line is None or loop.line.closed, "a failed opening leaves no connection")
        return f"opening {failed.outcome.error_class}"
    outcome = await _send(loop, session, _LARGE if large else _SMALL)
    if session.alive and (not session.dirty or await session.reset()):
        outcome = await _send(loop, session, _SMALL)
    await session.quit()
    _in_clear(loop)
    return f"{outcome.kind} {outcome.error_class}"


async def _send(loop: Loop, session: Session, envelope: Envelope) -> Outcome:
    notes, line = Notes(), loop.line
    assert line is not None
    outcome = await session.send(envelope, notes)
    _sound(outcome)
    said = notes.said
    if outcome.kind is Kind.SENT:
        hold(said == ["dot", "accepted"], f"a mail is sent after {said}")
        last = line.written[-1][1]
        hold(last.endswith(b"\r\n.\r\n") or last == b".\r\n", "a mail is sent with its dot")
        hold(line.since[:1] == b"2", "the 250 came after the dot, whole")
    elif outcome.kind is Kind.UNCERTAIN:
        hold(said == ["dot"], f"a mail is uncertain after {said}")
    else:
        hold(said in ([], ["dot", "refused"]), f"a mail is {outcome.kind} after {said}")
    if outcome.kind is Kind.UNCERTAIN or outcome.scope is Scope.CONNECTION:
        hold(not session.alive, "what is out of step is left")
    return outcome


def _sound(outcome: Outcome) -> None:
    """One classified value that can be kept and shown."""
    hold(isinstance(outcome, Outcome), "the end is an outcome")
    hold(outcome.kind is Kind.SENT or outcome.error_class, "what failed has its class")
    reply = outcome.reply
    hold(reply.code == 0 or 200 <= reply.code <= 599, "a code is a code")
    hold(len(reply.text) <= MAX_REPLY + 200, "a reply has an end")
    hold(all(c.isprintable() or c == "\n" for c in reply.text), "a reply can be shown")
    reply.text.encode()
    hold(TABLE.classify(outcome.phase, reply) if reply.code >= 400 else True, "and classified")
    if outcome.retry_after is not None:
        hold(0 <= outcome.retry_after <= 7 * 86400, "a wait that a relay asks for has an end")


def _in_clear(loop: Loop) -> None:
    """No word of the login goes out without TLS."""
    for secured, words in loop.line.written if loop.line else ():
        hold(secured or not words.upper().startswith(b"AUTH"), "no AUTH in clear")
        hold(secured or b"open-sesame" not in words, "no password in clear")


_EHLO = b"\x00250-x\r\n250-PIPELINING\r\n250-SIZE 100000000\r\n250-8BITMIME\r\n250 STARTTLS\r\n"
_AUTH = b"\x00250-x\r\n250 AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2\r\n"


def seeds() -> list[bytes]:
    """Relays as they are, so that a campaign begins with a conversation."""
    hello = [b"\x00220 x ESMTP\r\n", _EHLO]
    mail = [b"\x00250 ok\r\n250 ok\r\n354 go\r\n", b"\x00250 2.0.0 queued\r\n"]
    slow = [b"\x00250 ok\r\n", b"\x01250-more\r\n250 ok\r\n", b"\x0b354 go\r\n", b"\x00250 ok\r\n"]
    secure = [b"\x00220 go\r\n", _AUTH]
    said = [
        (0, [*hello, *mail, *mail]),
        (64, [*hello, mail[0], b"", b"\x00250 ok\r\n", *mail]),
        (0, [b"\x00220 x\r\n", b"\x00250 x\r\n", *slow]),
        (0, [b"\x00220 x\r\n", b"\x00502 no\r\n", b"\x00250 x\r\n", *slow, b"\x00250 ok\r\n"]),
        (1, [*hello, b"\x00220 go\r\n", _EHLO, *mail]),
        (2, [*hello, *secure, b"\x00235 in\r\n", *slow]),
        (3, [*hello, *secure, b"\x00334 VXNlcm5hbWU6\r\n", b"\x00334 UA==\r\n", b"\x00235 in\r\n"]),
        (4, [*hello, *secure, b"\x00334 PDE+\r\n", b"\x00235 in\r\n", *slow]),
        (5, [*hello, *secure, b"\x00334 e30=\r\n", b"\x00535 5.7.8 no\r\n"]),
        (0, [*hello, b"\x00250 ok\r\n550 5.1.1 no such user\r\n354 go\r\n", b"\x00250 ok\r\n"]),
        (0, [*hello, b"\x00451 4.7.1 try again in 5 minutes\r\n503 a\r\n503 a\r\n"]),
        (0, [*hello, mail[0], b"\x04421 closing\r\n"]),
        (0, [*hello, mail[0], b"\x05"]),
        (0, [*hello, mail[0], b"\x06250-"]),
        (0, [b"\x03220 drip\r\n"]),
        (0, [b"\xe6x"]),
    ]
    return [bytes([how]) + TURN.join(script) for how, script in said]


#: One change in so many makes a piece long.
_SWELLS = 60
#: A piece gets at most so long: a reply has an end long before.
_LONGEST_PIECE = 3 * MAX_REPLY


def changed(data: bytes, most: int, dice: Random, blindly: Callable[[bytes, int], bytes]) -> bytes:
    """The next input: its turns or its lines changed, or now and then any of its bytes."""
    if dice.random() < 0.4 or not data:
        # What is long already costs time: it is cut before anything else is done to it.
        return blindly(data[:4096], min(most, 4096))
    turns = data[1:].split(TURN)
    at = dice.randrange(len(turns))
    how, words = turns[at][:1], turns[at][1:]
    match dice.randrange(8):
        case 0:
            turns.insert(at, dice.choice(turns))
        case 1:
            del turns[at]
        case 2:
            other = dice.choice(seeds())[1:].split(TURN)
            turns[at : at + dice.randrange(2)] = other[dice.randrange(len(other)) :]
        case 3:
            turns[at] = bytes([dice.randrange(254)]) + words
        case 4:
            lines = words.split(b"\r\n")
            lines.insert(dice.randrange(len(lines)), dice.choice(lines))
            turns[at] = how + b"\r\n".join(lines)
        case 5:
            lines = words.split(b"\r\n")
            line = dice.randrange(len(lines))
            word = dice.choice(WORDS).encode("utf-8", "surrogatepass")
            lines[line] = dice.choice([lines[line][:4] + word, word + lines[line][4:]])
            turns[at] = how + b"\r\n".join(lines)
        case 6:
            # One reply of several lines, the last of them as it was.
            lines = words.split(b"\r\n")
            before = lines[0][:3] + b"-" + lines[0][4:]
            turns[at] = how + b"\r\n".join([before] * dice.choice([1, 2, 5]) + lines)
        case _:
            turns[at] = how + blindly(words[:2000], min(most, 4096))
    if dice.randrange(_SWELLS) == 0:
        at = dice.randrange(len(turns)) if turns else 0
        turns[at : at + 1] = [_swollen(turns[at] if turns else b"", dice)]
    elif len(data) > 8192 and dice.random() < 0.9:
        turns = [turn[:600] for turn in turns]
    return (data[:1] + TURN.join(turns))[:most]


def crossed(one: bytes, other: bytes, most: int, dice: Random) -> bytes:
    """The first turns of one, and then the other's."""
    ours, theirs = one[1:].split(TURN), other[1:].split(TURN)
    at = dice.randrange(len(ours) + 1)
    return (one[:1] + TURN.join(ours[:at] + theirs[dice.randrange(len(theirs)) :]))[:most]


def _swollen(turn: bytes, dice: Random) -> bytes:
    """A turn one piece of which is said again and again: a letter, a word or a line."""
    size = dice.choice((MAX_LINE, MAX_REPLY, dice.randrange(_LONGEST_PIECE)))
    lines = turn[1:].split(b"\r\n")
    at = dice.randrange(len(lines))
    line = lines[at]
    if dice.random() < 0.5:
        piece = line[:3] + b"-" + line[4:]
        lines[at:at] = [piece] * (size // (len(piece) + 2))
    else:
        place = dice.randrange(len(line) + 1)
        piece = line[place : place + dice.choice((1, 5, 80))] or b"x"
        lines[at] = line[:place] + piece * (size // len(piece) + dice.randrange(2)) + line[place:]
    return turn[:1] + b"\r\n".join(lines)


WORDS = [
    *("220 ", "250 ", "250-", "354 ", "334 ", "235 ", "421 ", "450 4.2.1 ", "550 5.1.1 ", "552 "),
    *("-250 ", "25", "\r\n", "\n", "\r", "\0", "\xfe", "\xfe\x00", "\xfe\x06", "999 ", "2.0.0 "),
    *("PIPELINING", "SIZE ", "8BITMIME", "SMTPUTF8", "STARTTLS", "AUTH ", "AUTH=", "XOAUTH2"),
    *(
        "\u0661\u0662\u0663",
        "\x1b[2J",
        "try again in ",
        " seconds",
        " minutes",
        "18446744073709551616",
    ),
]
