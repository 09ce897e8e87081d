"""What every command needs: the configuration, and how faults and results are said.

Owns exit codes (0 done, 1 found a fault, 2 wrong usage or configuration), JSON
output and the cleaning of text for the terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from mailgate.config.relays import Secret
    from mailgate.config.shape import Config
    from mailgate.journal.database import Database


@dataclass
class Setting:
    """The options before the command."""

    path: Path | None = None
    log_format: str | None = None
    log_level: str | None = None

    def config(self) -> Config:
        """The configuration with the embedded parts filled in; ends the program on faults."""
        from mailgate.config.embedded import complete

        return complete(self.said())

    def said(self) -> Config:
        """The configuration as it was written."""
        from mailgate.config.load import ConfigError

        try:
            return self._read()
        except ConfigError as error:
            for fault in error.faults:
                complain(str(fault))
            raise typer.Exit(2) from None

    def reread(self) -> Config:
        """The configuration as it is now, for a process that runs; raises ``ConfigError``."""
        from mailgate.config.embedded import complete

        return complete(self._read())

    def _read(self) -> Config:
        from mailgate.config.load import load

        environ = dict(os.environ)
        if self.log_format:
            environ["MAILGATE_LOG__FORMAT"] = self.log_format
        if self.log_level:
            environ["MAILGATE_LOG__LEVEL"] = self.log_level
        return load(self.path, environ, cwd=Path.cwd())

    def logs(self) -> None:
        """Set up logging for a process that runs on."""
        from mailgate import log

        log.configure(self.config().log.format, self.config().log.level)

    def database(self, *, hot: bool = False) -> Database:
        """The journal, for a command; ends the program when its schema is not ours."""
        from mailgate.journal import revision
        from mailgate.journal.database import Database, JournalAway

        url = self.config().journal.url or ""
        try:
            behind = revision.behind(url)
        except JournalAway as error:
            fail(f"the journal cannot be reached: {error}")
        if behind:
            fail(f"the journal's schema is at {behind}: run mailgate db upgrade")
        return Database(url, hot=hot)


setting = Setting()


def passwords(config: Config) -> Mapping[str, Secret]:
    """The relays' passwords; ends the program when one cannot be had."""
    from mailgate.config.load import ConfigError, resolve_password

    found: dict[str, Secret] = {}
    faults = []
    for name, relay in config.relays.items():
        try:
            password = resolve_password(relay, os.environ, name=name)
        except ConfigError as error:
            faults += error.faults
            continue
        if password is not None:
            found[name] = password
    if faults:
        for fault in faults:
            complain(str(fault))
        raise typer.Exit(2)
    return found


def check_keys(config: Config) -> None:
    """Warn about the keys that sign mail; one that cannot sign ends the program."""
    if not config.dkim:
        return
    from mailgate.render.dkim_keys import read_keys

    keys = read_keys(config.dkim)
    for warning in keys.warnings:
        complain(f"warning: {warning}")
    for fault in keys.faults:
        complain(str(fault))
    if keys.faults:
        raise typer.Exit(2)


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"mailgate: {clean(text)}", file=sys.stderr)


def fail(text: str, code: int = 1) -> NoReturn:
    """Say what is wrong and end the program."""
    complain(text)
    raise typer.Exit(code)


def show_json(document: Mapping[str, Any]) -> None:
    """One JSON document on standard output, whatever characters it holds."""
    print(json.dumps(document, ensure_ascii=True, indent=2, default=str))


def counted(many: int, what: str = "recipient") -> str:
    """``1 recipient``, ``2 recipients``."""
    return f"{many} {what}" if many == 1 else f"{many} {what}s"


def clean(text: str) -> str:
    """Text that cannot steer a terminal: control and direction characters are shown escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == " " else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    return "\\n" if c == "\n" else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"


def read_file(path: Path) -> bytes:
    """The bytes of a file that an option names; one that cannot be read ends the program."""
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", 2)


def guarded(work: Callable[[], Any]) -> Any:
    """Run a command's work; a journal or broker that is away is one clear line."""
    from mailgate.journal.database import JournalAway

    try:
        return work()
    except JournalAway as error:
        fail(f"the journal cannot be reached: {error}")
