"""Bytes from a relay become replies (RFC 5321 section 4.2, RFC 3463).

Owns the only reading of what a relay says, with a bound on everything that a
relay could make long. Pure; never does I/O.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mailgate.model.outcome import Reply

#: RFC 5321 section 4.5.3.1.5 allows 512; real relays write longer ones.
MAX_LINE = 4096
MAX_LINES = 128
MAX_REPLY = 32768
#: Bytes of a text that is remembered.
_SHORT = 128

# RFC 2034: the code opens the text. Others write it after '#', '(' or a word, so
# that is looked for next; four numbers in a row are an IP address.
_AT_START = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
_ANYWHERE = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")


class MalformedReply(Exception):
    """The relay sent something that is no SMTP reply; its place in the stream is lost."""


def enhanced_code(text: str, code: int) -> str:
    """The enhanced status code (RFC 3463) in a reply's text, or ''.

    ``text`` is the reply without its basic codes, one line per line. The start
    of any line is preferred to the middle of one.
    """
    first = text[:1]
    if not first or (code < 400 and first not in "245"):
        return ""
    found = _AT_START.match(text)
    if found is None and code >= 400:
        for line in text.split("\n")[1:]:
            found = _AT_START.match(line)
            if found is not None:
                break
        else:
            found = _ANYWHERE.search(text)
    if found is None:
        return ""
    if len(found[0]) == 5:
        # One digit each, as nearly always: no zero leads.
        return found[0]
    return ".".join(str(int(part)) for part in found.groups())


def parse_reply(raw: str) -> Reply:
    """One reply as a person would paste it: ``550 5.1.1 User unknown``, or several lines.

    Raises ``MalformedReply`` when it does not begin with a reply code.
    """
    reader = ReplyReader()
    lines = [line.strip() for line in raw.strip().splitlines() if line.strip()]
    for line in lines:
        # A pasted reply often has a space on each line, or a hyphen on the last.
        mark = "-" if line is not lines[-1] else " "
        reader.feed(f"{line[:3]}{mark}{line[4:]}\r\n".encode())
    reply = reader.take()
    if reply is None:
        raise MalformedReply(f"no end: {raw!r}")
    return reply


class ReplyReader:
    """Cuts a stream of bytes into replies; holds at most ``MAX_REPLY`` bytes of one."""

    __slots__ = ("_lines", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> bool:
        """Whether bytes are left that belong to no reply taken so far."""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> None:
        self._rest = self._rest + data if self._rest else data

    def take(self) -> Reply | None:
        """The next whole reply, or None until more bytes come.

        Raises ``MalformedReply`` for what is no reply or is longer than the bounds.
        """
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if len(line) > MAX_LINE:
                raise MalformedReply(f"a line longer than {MAX_LINE} bytes")
            if not newline:
                return None
            self._rest = rest
            code, mark = line[:3], line[3:4]
            if not (code.isdigit() and len(code) == 3 and b"2" <= code[:1] <= b"5") or (
                mark not in (b" ", b"-", b"\r", b"")
            ):
                raise MalformedReply(f"not a reply: {line[:80]!r}")
            if self._lines and not self._lines[0].startswith(code):
                raise MalformedReply(f"the code changes inside a reply: {line[:80]!r}")
            if mark != b"-" and not self._lines:
                return _reply(int(code), line[4:])
            self._lines.append(line)
            self._size += len(line)
            if len(self._lines) > MAX_LINES or self._size > MAX_REPLY:
                raise MalformedReply(f"a reply longer than {MAX_LINES} lines or {MAX_REPLY} bytes")
            if mark != b"-":
                texts = [each[4:].strip() for each in self._lines]
                self._lines, self._size = [], 0
                return _reply(int(code), b"\n".join(texts))


def _reply(code: int, raw: bytes) -> Reply:
    # Most of what a relay says are the same few words, over and over.
    return _known(code, raw) if len(raw) <= _SHORT else _read(code, raw)


def _read(code: int, raw: bytes) -> Reply:
    text = raw.decode("utf-8", "replace").strip()
    if not text.isprintable():
        # Kept, logged and shown on terminals: no control characters but line ends.
        text = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    return Reply(code, text, enhanced_code(text, code))


_known = lru_cache(maxsize=64)(_read)
