"""``mailgate limits``: what each limit holds and who waits under it."""

from __future__ import annotations

from typing import Any

import typer

from mailgate.cli.filters import JsonOption, LimitOption
from mailgate.cli.setting import guarded, setting

app = typer.Typer(help="Limits: how they stand.", no_args_is_help=True)


@app.command()
def show(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """Show each limit: its rate, what was used of it, when it next admits, who waits."""
    import asyncio

    from mailgate.cli.tables import show_items
    from mailgate.gateway import open_limiter
    from mailgate.operations.limits import limits

    config = setting.config()
    database = setting.database()

    async def look() -> list[dict[str, Any]]:
        limiter = open_limiter(config, database)
        try:
            return await limits(config, database, limiter)
        finally:
            await limiter.close()

    items = guarded(lambda: asyncio.run(look()))[:limit]
    show_items(items, ("name", "rate", "used", "next_in", "waiting"), as_json=as_json)
