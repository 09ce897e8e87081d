"""``mailgate studio``: a local page to look at templates while they are written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate.cli.notify import ready
from mailgate.cli.processes import until_stopped
from mailgate.cli.setting import complain, fail, setting

if TYPE_CHECKING:
    import asyncio

    from mailgate.config.relays import Secret
    from mailgate.config.shape import Config


def studio(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="For the page; 0 takes any free port.")
    ] = 8026,
    host: Annotated[str, typer.Option(help="Interface; the page has no login.")] = "127.0.0.1",
) -> None:
    """Look at templates on a local page: every save is shown at once, test mails can be sent."""
    from mailgate.config.embedded import complete, embeds_inbox
    from mailgate.config.urls import is_loopback
    from mailgate.render.catalogue import built_in_root
    from mailgate.render.dkim_keys import read_keys
    from mailgate.studio.sending import way
    from mailgate.studio.studio import serve

    setting.logs()
    said = setting.said()
    config = complete(said)
    passwords, fault = _passwords(config)
    keys = read_keys(config.dkim)
    signer = None if keys.faults else keys.signer()
    # A test mail goes as the others go, or not at all.
    fault = "; ".join([fault] * bool(fault) + [str(one) for one in keys.faults])
    roots = (*config.templates.path, built_in_root())
    # The embedded relay is the inbox of this machine, unless somebody put it elsewhere.
    local = embeds_inbox(said) and is_loopback(config.inbox.host)
    if not is_loopback(host):
        complain(f"warning: {host} is not this machine alone, and the studio has no login")

    def on_ready(url: str) -> None:
        for root in roots:
            print(f"studio: templates {root}")
        print(f"studio: page {url}", flush=True)
        ready()

    async def run(stop: asyncio.Event) -> None:
        await serve(
            config,
            roots,
            host=host,
            port=port,
            way=way(config, local=local, fault=fault),
            passwords=passwords,
            signer=signer,
            on_ready=on_ready,
            stop=stop,
        )

    try:
        until_stopped(run)
    except FileNotFoundError as error:
        fail(str(error), 2)
    except OSError as error:
        fail(f"the studio cannot listen on {host}:{port}: {error.strerror or error}")


def _passwords(config: Config) -> tuple[dict[str, Secret], str]:
    """The relays' passwords, or why test mails cannot be sent: looking needs none."""
    from mailgate.config.load import ConfigError, resolve_password

    found: dict[str, Secret] = {}
    for name, relay in config.relays.items():
        try:
            password = resolve_password(relay, os.environ, name=name)
        except ConfigError as error:
            return {}, "; ".join(str(fault) for fault in error.faults)
        if password is not None:
            found[name] = password
    return found, ""
