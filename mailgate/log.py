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
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

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

_dispositions = structlog.stdlib.get_logger("mailgate.disposition")


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


def disposition(
    event: str,
    *,
    message_id: str | int,
    recipient_id: int,
    producer: str,
    stream: str,
    relay: str,
    address: str,
    attempts: int,
    duration_ms: int,
    error_class: str = "",
    code: int = 0,
) -> None:
    """The one line about what became of a recipient (``sent``, ``deferred``…).

    Of ``address`` only the domain is written; ``duration_ms`` is the time since
    the message was accepted, in milliseconds; ``code`` is the relay's, 0 for none.
    """
    said: dict[str, Any] = {
        "message_id": message_id,
        "recipient_id": recipient_id,
        "producer": producer,
        "stream": stream,
        "relay": relay,
        "domain": address.rpartition("@")[2],
        "attempts": attempts,
        "duration_ms": duration_ms,
    }
    if error_class:
        said["error_class"] = error_class
    if code:
        said["code"] = code
    _dispositions.info(event, **said)


def mask_address(text: str) -> str:
    """``a***@example.com`` for one address, with or without a display name."""
    local, at, domain = text.strip().rstrip(">").rpartition("@")
    if not at:
        return "***"
    first = local.rpartition("<")[2].strip("\"' ")[:1]
    return f"{first}***@{domain}"


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
    if isinstance(value, str) and _BARE.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)
