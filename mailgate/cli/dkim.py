"""``mailgate dkim``: keys that sign mail, and what their domains publish."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mailgate.cli.filters import JsonOption
from mailgate.cli.setting import check_keys, fail, setting, show_json

app = typer.Typer(help="DKIM keys: make one, print its DNS record.", no_args_is_help=True)

#: A character-string of a TXT record holds at most so many octets (RFC 1035 section 3.3).
_STRING = 255


class Algorithm(StrEnum):
    rsa = "rsa"
    ed25519 = "ed25519"


@app.command()
def generate(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; must not exist.")],
    algorithm: Annotated[
        Algorithm, typer.Option(help="rsa has 2048 bits, and every receiver knows it.")
    ] = Algorithm.rsa,
) -> None:
    """Make a private key in a file that only you can read."""
    from mailgate.render.dkim_keys import make_key

    pem = make_key(algorithm.value)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(pem)
    except OSError as error:
        fail(f"{file} cannot be written: {(error.strerror or str(error)).lower()}", 2)
    print(f"{file}: name it in [dkim], then: mailgate dkim dns")


@app.command()
def dns(
    domain: Annotated[str | None, typer.Argument(help="All when none is named.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the TXT record of each key, as a zone file holds it. Publish, wait, then sign."""
    from mailgate.render.dkim_keys import read_key, record

    config = setting.config()
    wanted = [name for name in config.dkim if domain in (None, name)]
    if not wanted:
        known = ", ".join(config.dkim) or "none"
        fail(f"dkim has no key for {domain or 'any domain'}; its domains: {known}", 2)
    check_keys(config)
    items: list[dict[str, Any]] = []
    for name in wanted:
        for selector, path in config.dkim[name].keys.items():
            found = record(name, selector, read_key(path))
            items.append({"domain": name, "selector": selector, "name": found.name,
                          "type": "TXT", "text": found.text})  # fmt: skip
    if as_json:
        show_json({"items": items})
        return
    for item in items:
        text = item["text"]
        strings = [text[at : at + _STRING] for at in range(0, len(text), _STRING)]
        quoted = " ".join(f'"{string}"' for string in strings)
        print(f"{item['name']}. IN TXT ( {quoted} )")
