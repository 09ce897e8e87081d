"""From a TOML file, the environment and secret files to one ``Config``.

Owns where configuration comes from, which source wins, and the report of every
fault at once. Never decides what a key means: ``config.shape`` does. Reads the
file and the secret files and nothing else; the environment is passed in.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mailgate.config import urls
from mailgate.config.environment import PREFIX, Setting, settings
from mailgate.config.faults import ConfigError, ConfigFault, Draft, validated
from mailgate.config.fields import Place, allowed, place
from mailgate.config.relays import Relay, Secret
from mailgate.config.review import masked, warnings
from mailgate.config.shape import Config

__all__ = [
    "ConfigError",
    "ConfigFault",
    "load",
    "masked",
    "resolve_password",
    "secret_faults",
    "warnings",
]

DEFAULT_FILE = "mailgate.toml"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_LINE_AND_COLUMN = re.compile(r" \(at (line \d+, column \d+|end of document)\)$")


def load(path: Path | None, environ: Mapping[str, str], *, cwd: Path) -> Config:
    """The configuration of this process.

    ``path`` (``--config``), else ``MAILGATE_CONFIG``, else ``mailgate.toml`` in
    ``cwd`` where it exists, else the defaults; over it any ``MAILGATE_SECTION__KEY``.
    Relative paths in the file are taken from the file's directory, all others from
    ``cwd``. Raises ``ConfigError`` with every fault found.
    """
    draft = Draft()
    base = _read_file(draft, path, environ, cwd)
    _finish_values(draft, draft.tree, (), base)
    passwords = {
        str(relay["password_env"])
        for relay in _tables(draft.tree, "relays")
        if "password_env" in relay
    }
    for said in settings(environ, draft.tree):
        if said.name not in passwords:
            _overlay(draft, said, cwd)
    draft.tree.setdefault("state_dir", str(cwd / Config.model_fields["state_dir"].default))
    config = validated(draft)
    if draft.faults or config is None:
        raise ConfigError(draft.faults)
    return config


def resolve_password(relay: Relay, environ: Mapping[str, str], *, name: str = "") -> Secret | None:
    """The relay's password from its variable or file; None when it has neither.

    For a ``token_file`` it is what reads the token again for each login. ``name`` is
    the relay's, for the message. Raises ``ConfigError``.
    """
    prefix = f"relays.{name}." if name else ""
    if relay.password_env is not None:
        value = environ.get(relay.password_env)
        if not value:
            state = "is not set" if value is None else "is empty"
            rule = f"names the variable {relay.password_env}, which {state}"
            raise ConfigError([ConfigFault(f"{prefix}password_env", rule, "environment")])
        return value
    for key, file, read in (
        ("password_file", relay.password_file, _secret),
        ("token_file", relay.token_file, read_token),
    ):
        if file is None:
            continue
        try:
            value = read(file)
        except (OSError, UnicodeDecodeError) as error:
            rule = f"cannot be read: {_reason(error)}"
        except ValueError as error:
            rule = str(error)
        else:
            if value:
                return value if read is _secret else partial(read_token, file)
            rule = "is an empty file"
        raise ConfigError([ConfigFault(prefix + key, rule, str(file))])
    return None


def read_token(path: Path) -> str:
    """The access token in a file. Raises ``OSError``, or ``ValueError`` when it holds none."""
    token = _secret(path).strip()
    if not token:
        raise ValueError("is an empty file")
    if not _TOKEN.fullmatch(token):
        raise ValueError("is not one access token: A-Z, a-z, 0-9 and -._~+/= (RFC 6750)")
    return token


def secret_faults(config: Config, environ: Mapping[str, str]) -> list[ConfigFault]:
    """The passwords that this process could not get at; for ``config check``."""
    faults = []
    for name, relay in config.relays.items():
        try:
            resolve_password(relay, environ, name=name)
        except ConfigError as error:
            faults += error.faults
    return faults


def _read_file(draft: Draft, path: Path | None, environ: Mapping[str, str], cwd: Path) -> Path:
    """Put the file's tables into the draft; returns where its relative paths begin."""
    named = path or (Path(said) if (said := environ.get(f"{PREFIX}CONFIG")) else None)
    file = cwd / (named or DEFAULT_FILE)
    if named is None and not file.exists():
        return cwd
    draft.file = str(file)
    try:
        draft.tree = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        where = _LINE_AND_COLUMN.search(str(error))
        text = _LINE_AND_COLUMN.sub("", str(error))
        at = where[1] if where else "end of document"
        raise ConfigError([ConfigFault("", f"{at}: {text}", draft.file)]) from None
    except (OSError, UnicodeDecodeError) as error:
        rule = f"the configuration file cannot be read: {_reason(error)}"
        raise ConfigError([ConfigFault("", rule, draft.file)]) from None
    return file.parent


def _overlay(draft: Draft, said: Setting, cwd: Path) -> None:
    """Put one setting of the environment over the file."""
    source = f"environment variable {said.name}"
    if said.path is None:
        draft.blame((said.name,), said.rule, source)
        return
    value = said.value
    if said.is_file:
        try:
            value = _secret(cwd / said.raw)
        except (OSError, UnicodeDecodeError) as error:
            draft.blame(said.path, f"cannot be read from '{said.raw}': {_reason(error)}", source)
            return
    table = draft.tree
    for part in said.path[:-1]:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            return  # What stands there is a fault of its own.
        table = inner
    if draft.sources.get(said.path, "").startswith("environment"):
        draft.blame(said.path, "is set twice: as a value and as a file", source)
        return
    draft.sources[said.path] = source
    holder = {said.path[-1]: value}
    _finish_values(draft, holder, said.path[:-1], cwd)
    table.pop(said.path[-1], None)
    table |= holder


def _finish_values(draft: Draft, table: dict[str, Any], at: tuple[str, ...], base: Path) -> None:
    """In place: lone values into lists, relative paths from ``base``, URLs canonical."""
    for key, value in list(table.items()):
        path = (*at, key)
        where = place(path)
        if isinstance(value, dict):
            _finish_values(draft, value, path, base)
        elif where is not None:
            if isinstance(value, bool) and allowed(where) != "true or false":
                # The validator would read it as 0 or 1.
                draft.blame(path, f"is {str(value).lower()}; it must be {allowed(where)}")
                del table[key]
                continue
            if where.items is not None and not isinstance(value, list):
                value = [value]
            table[key] = _rooted(where, value, base)
            if (read := _reader(path)) and isinstance(value, str):
                try:
                    table[key] = read(value, base)
                except urls.UrlError as error:
                    draft.blame(path, str(error))
                    del table[key]


_URLS: dict[tuple[str, ...], Callable[[str, Path], str]] = {
    ("broker", "url"): lambda text, _: urls.broker(text),
    ("intake", "url"): lambda text, _: urls.broker(text),
    ("events", "url"): lambda text, _: urls.broker(text),
    ("limiter", "url"): lambda text, _: urls.limiter(text),
    ("journal", "url"): urls.journal,
}


def _reader(path: tuple[str, ...]) -> Callable[[str, Path], str] | None:
    """What reads the URL at a path, if one stands there."""
    if len(path) == 3 and (path[0], path[2]) == ("sources", "url"):
        return urls.source
    return _URLS.get(path)


def _rooted(where: Place, value: Any, base: Path) -> Any:
    if isinstance(value, list) and where.items is not None:
        return [_rooted(Place(where.items, None), one, base) for one in value]
    if isinstance(value, str) and allowed(where) == "a path":
        return os.path.abspath(base / Path(value).expanduser())
    return value


def _tables(tree: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    found = tree.get(section)
    tables = found.values() if isinstance(found, dict) else ()
    return [table for table in tables if isinstance(table, dict)]


def _secret(path: Path) -> str:
    """A secret file's text without the line end that editors and ``echo`` add."""
    return path.read_bytes().decode().rstrip("\r\n")


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return "it is not UTF-8"
