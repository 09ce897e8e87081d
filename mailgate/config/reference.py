"""The manual of the configuration, written from the fields themselves.

``python -m mailgate.config.reference > docs/configuration.md`` writes it anew; a
test says that the page in the repository is current. Reads no configuration.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from pydantic import BaseModel

from mailgate.config.fields import NAME, ROW, allowed, place, walk
from mailgate.config.streams import BUILT_IN, PRESETS, Backoff

_HEAD = """\
# Configuration

This page is written by `python -m mailgate.config.reference` from the fields
themselves; `config.example.toml` shows the same keys with examples.

## Where it comes from

1. The file: `--config FILE`, else the one that `MAILGATE_CONFIG` names, else
   `./mailgate.toml` where it exists, else nothing: the defaults below.
2. Over it, any key as an environment variable: `MAILGATE_SECTION__KEY`, nested with
   two underscores: `MAILGATE_BROKER__URL`, `MAILGATE_RELAYS__MAIN__HOST`,
   `MAILGATE_STREAMS__BULK__RETRY__FIRST`. The value is read as TOML where it is TOML
   (`20`, `true`, `["main", "backup"]`), else as it stands. A `-` in the name of a
   relay or stream that the file knows is written `_`.
3. Any text also from a file: `MAILGATE_JOURNAL__URL_FILE=/run/secrets/journal` reads
   the URL from there (without the line end). Setting both is a fault.

A relative path in the file is taken from the file's directory; one in the
environment, and the default of `state_dir`, from the working directory. Where a list
belongs, a lone value is a list of one.

A variable that begins with `MAILGATE_` and sets no known key is a fault, except the
ones that a `password_env` names. Passwords of relays are never written in the
configuration: `password_env` or `password_file` say where they are.

`mailgate config check` reports everything that is wrong at once and warns of what is
dangerous; `mailgate config show` shows what is in force, with passwords as `***`.
`mailgate reload` has processes that run read it again; [what they take without a
restart](operators.md#change-the-configuration-while-it-runs).

Durations are written `250ms`, `30s`, `10m`, `4h`, `3d`, `2w`. Rates are written
`14/s`, `100/m`, `20/h`, `5/d`, also `3/10m`; `14/s burst 20` lets 20 go at once.

## URLs

| For | Allowed |
|---|---|
| `broker.url`, `intake.url` | `redis://[user:password@]host[:port][/db]`, `rediss://…` (TLS), \
`redis+socket:///path[?virtual_host=db]` (or `unix:///path[?db=…]`), `sentinel://…`, \
`amqp://user:password@host[:port]/vhost`, `amqps://…`; several of one kind, separated by `;`, \
for failover |
| `limiter.url` | the Redis forms above, or `journal` |
| `journal.url` | `sqlite:///path`, `postgresql+psycopg://user:password@host/database` \
(`postgresql://` means the same) |

In a password `/`, `#`, `?`, `:`, `@`, `;` and `%` are percent-encoded.
"""

#: The page says once how durations and rates are written.
_SAMPLES = re.compile(r" such as '.*'")


def reference() -> str:
    """The page ``docs/configuration.md`` in Markdown."""
    lines = [_HEAD.rstrip()]
    header: str | None = None
    for path, field in walk():
        if _header(path) != header:
            header = _header(path)
            lines += ["", f"## `[{header}]`" if header else "## At the top of the file", ""]
            if header == f"streams.{NAME}":
                lines += [*_built_in(), ""]
            if header == f"streams.{NAME}.retry":
                lines += [*_presets(), ""]
            lines += ["| Key | Default | Value | Meaning |", "|---|---|---|---|"]
        where, above = place(path), place(path[:-1])
        assert where is not None
        default = _default(above.section if above else None, path[-1])
        values = _SAMPLES.sub("", allowed(where))
        lines.append(f"| `{path[-1]}` | {default} | {values} | {field.description} |")
    return "\n".join(lines) + "\n"


def _header(path: tuple[str, ...]) -> str:
    """The table's name in TOML; that of a list of tables stands in brackets once more."""
    name = ".".join(part for part in path[:-1] if part != ROW)
    return f"[{name}]" if ROW in path else name


def _default(section: type[BaseModel] | None, key: str) -> str:
    values = section.model_construct().model_dump(mode="json", by_alias=True) if section else {}
    if key not in values:
        return "required"
    if values[key] in (None, []):
        return "none"
    return f"`{_written(values[key])}`"


def _built_in() -> list[str]:
    """What the streams that are always there differ in."""
    lines = [
        "Three streams are always there; a table of the same name changes them key by key.",
        "",
    ]
    for name, said in BUILT_IN.items():
        keys = [f"`{key} = {_written(value)}`" for key, value in said.items()]
        lines.append(f"- `{name}`: {', '.join(keys) or 'the defaults'}")
    return lines


def _presets() -> list[str]:
    """The schedules that have a name."""
    lines = ['`retry = "NAME"` is a preset; a table changes the preset that it names:', ""]
    for name, said in PRESETS.items():
        whole = Backoff.model_validate(name).model_dump(mode="json", exclude={"preset"})
        keys = [f"`{key} = {_written(value)}`" for key, value in whole.items() if key in said]
        lines.append(f"- `{name}`: {', '.join(keys) or 'the defaults'}")
    return lines


def _written(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_written(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


if __name__ == "__main__":
    sys.stdout.write(reference())
