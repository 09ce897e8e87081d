"""Logs: one line a record, on standard error, with no address in it.

Owns the set-up of structlog and of the standard library's logging (Celery, uvicorn
and every other library go through the same formatting), the masking of addresses
and passwords, and the line for each recipient's disposition. Never decides what is
worth logging, and never lets a value break out of its line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TextIO

# structlog imports rich, where that is installed, for tracebacks that are never printed
# here: 4 MiB in every process. It is told that there is none.
_plain = "rich" not in sys.modules
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
try:
    import structlog
    from structlog.typing import EventDict, Processor
finally:
    if _plain:
        del sys.modules["rich"]

Format = Literal["json", "console"]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

#: Loggers of libraries that bring handlers of their own, or say too much.
_FOREIGN: Mapping[str, int] = {
    "uvicorn": logging.NOTSET,
    "uvicorn.error": logging.NOTSET,
    "uvicorn.access": logging.WARNING,
    "celery": logging.NOTSET,
    "celery.task": logging.NOTSET,
    "celery.redirected": logging.NOTSET,
    "kombu": logging.NOTSET,
    "amqp": logging.WARNING,
    "asyncio": logging.WARNING,
    # At each start it tells which plug-ins it has.
    "alembic": logging.WARNING,
    # aiosmtpd writes each command with the addresses in it.
    "mail.log": logging.WARNING,
    "mail.debug": logging.WARNING,
}

#: Keys whose whole value is an address, however it is written.
_ADDRESS_KEYS = frozenset(
    {
        *("address", "email", "envelope_from", "from", "mail_from", "rcpt", "rcpt_to"),
        *("recipient", "reply_to", "sender", "to", "cc", "bcc"),
    }
)
#: Keys whose value looks like an address and is none.
_NO_ADDRESS_KEYS = frozenset({"message_id", "node", "worker", "hostname"})

_SECRET_KEYS = re.compile(r"(?i)password|secret|token|authorization|credential")
#: Takes in more than the address rather than less: VERP and quotes hold names too.
_ADDRESS = re.compile(
    r"(?:\"[^\"]*\"|[^\s<>()\[\],;:@\"]+)@((?:[\w-]+\.)+[\w-]+|\[[0-9A-Fa-f.:]+\])"
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")

#: What could end a line, steer a terminal or turn the reading order around: C0, DEL,
#: C1, the line separators, the bidirectional controls and lone surrogates.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

#: Stands unquoted in key=value.
_BARE = re.compile(r"[^\s\"'=\\]+")

_dispositions = logging.getLogger("mailgate.disposition")
_said = structlog.stdlib.get_logger("mailgate.disposition")
_direct: _Direct | None = None

#: Processes share a pipe; what is shorter than this stays together in it (PIPE_BUF).
_ATOMIC = 4096


def configure(
    format: Format,
    level: str = "info",
    *,
    stream: TextIO | None = None,
    show_addresses: bool = False,
) -> None:
    """Send all logging of this process to ``stream`` (standard error), a line a record.

    May be called again; the last call holds. ``show_addresses`` leaves addresses
    as they are, for a developer's own machine; passwords are masked all the same.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.StackInfoRenderer(),
            _Masker(show_addresses),
            strip_controls,
            _render_json if format == "json" else _render_console,
        ],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    global _direct
    _direct = None if show_addresses else _Direct(handler, format)
    root.setLevel(_LEVELS[level])
    for name, least in _FOREIGN.items():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(least)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Loggers are made at import, before this call, and follow it.
        cache_logger_on_first_use=False,
    )


class Disposition(NamedTuple):
    """What became of a recipient; of ``address`` only the domain is written.

    ``event`` is the state (``sent``, ``deferred``…); ``duration_ms`` is how long the
    conversation took; ``code`` is the relay's, 0 for none.
    """

    event: str
    message_id: str | int
    recipient_id: str | int
    producer: str
    stream: str
    relay: str
    address: str
    attempts: int
    duration_ms: int
    error_class: str = ""
    code: int = 0

    def fields(self) -> dict[str, Any]:
        """What the line says beside the event."""
        said: dict[str, Any] = {
            "message_id": self.message_id,
            "recipient_id": self.recipient_id,
            "producer": self.producer,
            "stream": self.stream,
            "relay": self.relay,
            "domain": self.address.rpartition("@")[2],
            "attempts": self.attempts,
            "duration_ms": self.duration_ms,
        }
        if self.error_class:
            said["error_class"] = self.error_class
        if self.code:
            said["code"] = self.code
        return said


def dispositions(batch: Sequence[Disposition]) -> None:
    """A line for each recipient of the batch."""
    if not _dispositions.isEnabledFor(logging.INFO):
        return
    direct = _direct if _direct is not None and _direct.serves() else None
    for one in batch if direct is None else direct.write(batch):
        _said.info(one.event, **one.fields())


class _Direct:
    """The short way for dispositions, which are as many as all other lines together.

    Writes the line that the long way would write, when nothing in it needs masking or
    escaping; what does is left to the long way.
    """

    def __init__(self, handler: logging.StreamHandler[TextIO], format: Format) -> None:
        self._handler = handler
        self._json = format == "json"

    def serves(self) -> bool:
        """Whether a line of the long way would end in our handler alone, as it is."""
        logger = _dispositions
        return (
            logging.getLogger().handlers == [self._handler]
            and not (logger.handlers or logger.filters or self._handler.filters)
            and logger.propagate
            and not structlog.contextvars.get_contextvars()
        )

    def write(self, batch: Sequence[Disposition]) -> list[Disposition]:
        """Write what can be written; gives the rest."""
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        rest: list[Disposition] = []
        text = ""
        for one in batch:
            said = one.fields()
            words = "".join([value for value in said.values() if type(value) is str])
            if "@" in words or not words.isascii() or not words.isprintable():
                rest.append(one)
                continue
            line = self._line(now, one.event, said)
            if len(text) + len(line) >= _ATOMIC:
                self._out(text)
                text = ""
            text += line + "\n"
        if text:
            self._out(text)
        return rest

    def _line(self, now: str, event: str, said: Mapping[str, Any]) -> str:
        name = _dispositions.name
        if self._json:
            head = {"time": now, "level": "info", "logger": name, "event": event}
            return json.dumps({**head, **said}, ensure_ascii=False)
        pairs = [
            f"{key}={value if type(value) is int else _quoted(value)}"
            for key, value in said.items()
        ]
        return " ".join([now, "info   ", name, event, *pairs])

    def _out(self, text: str) -> None:
        handler = self._handler
        handler.acquire()
        try:
            handler.stream.write(text)
            handler.flush()
        except (OSError, ValueError):
            # As every handler of logging does: what cannot be written stops nobody.
            pass
        finally:
            handler.release()


def mask_address(text: str) -> str:
    """``a***@example.com`` for one address, with or without a display name."""
    local, at, domain = text.strip().rstrip(">").rpartition("@")
    if not at:
        return "***"
    first = local.rpartition("<")[2].strip("\"' ")[:1]
    return f"{first}***@{domain}"


def where(error: BaseException) -> str:
    """What kind of error and where, in place of its words: they may quote what somebody wrote."""
    steps = traceback.extract_tb(error.__traceback__)
    at = f" in {steps[-1].name}, line {steps[-1].lineno}" if steps else ""
    return f"{type(error).__name__}{at}"


def mask_text(text: str) -> str:
    """Every address in free text masked, and the credentials in every URL."""
    if "@" not in text:
        return text
    text = _CREDENTIALS.sub("***@", text)
    return _ADDRESS.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    local = found[0].lstrip('"*/')
    return f"{local[:1] if local[:1] != '@' else ''}***@{found[1]}"


def strip_controls(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Write control characters as visible escapes, so that no value can forge a line."""
    return {_visible(str(key)): _each(value, _visible) for key, value in event.items()}


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda c: _SHORT.get(c[0]) or f"\\u{ord(c[0]):04x}", text)


class _Masker:
    """A processor that keeps addresses and secrets out of the line."""

    def __init__(self, show_addresses: bool) -> None:
        self._show = show_addresses

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        event.pop("color_message", None)  # uvicorn says everything twice
        return {key: self._value(str(key), value) for key, value in event.items()}

    def _value(self, key: str, value: Any) -> Any:
        if _SECRET_KEYS.search(key):
            return "***"
        if isinstance(value, Mapping):
            return {k: self._value(str(k), inner) for k, inner in value.items()}
        if key in _NO_ADDRESS_KEYS:
            return value
        if self._show:
            return _each(value, lambda text: _CREDENTIALS.sub("***@", text))
        return _each(value, mask_address if key in _ADDRESS_KEYS else mask_text)


def _each(value: Any, change: Any) -> Any:
    """``change`` applied to every text in ``value``; what is no plain value becomes text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {_visible(str(key)): _each(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_each(inner, change) for inner in value]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return change(str(value))


def _render_json(_logger: Any, _method: str, event: EventDict) -> str:
    first = {key: event.pop(key) for key in ("time", "level", "logger", "event") if key in event}
    return json.dumps({**first, **event}, ensure_ascii=False)


def _render_console(_logger: Any, _method: str, event: EventDict) -> str:
    time, level, logger, said = (
        str(event.pop(key, "")) for key in ("time", "level", "logger", "event")
    )
    pairs = [f"{key}={_quoted(value)}" for key, value in event.items()]
    said = json.dumps(said, ensure_ascii=False) if "=" in said else said
    return " ".join([time, f"{level:<7}", logger, said, *pairs])


def _quoted(value: Any) -> str:
    if isinstance(value, str) and ((value.isascii() and value.isalnum()) or _BARE.fullmatch(value)):
        return value
    return json.dumps(value, ensure_ascii=False)
