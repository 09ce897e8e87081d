"""From a URL to redis-py's clients, alike for doors, limits, rings, events and producers.

Owns what each form of URL means for redis-py (``config.urls`` spells them), and who else has
connections where Sentinels are asked. Never connects, and never says how long to wait or what
to try again: that is each caller's ``options``. Imports no redis-py: callers pass ``redis`` or
``redis.asyncio``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mailgate.config.urls import for_redis_py, is_sentinel, sentinels


def clients(url: str, module: Any, options: Mapping[str, Any]) -> list[Any]:
    """A client for each URL separated by ``;``, one for all when they are Sentinels.

    ``redis://``, ``rediss://``, ``unix://``, ``redis+socket:///path?virtual_host=db``,
    ``sentinel://host:port/db?master_name=name``. Nothing is connected yet.
    """
    if is_sentinel(url):
        return [client(url, module, options)]
    return [client(one, module, options) for one in url.split(";")]


def client(url: str, module: Any, options: Mapping[str, Any]) -> Any:
    """The client of one URL, or of several of Sentinels."""
    if is_sentinel(url):
        nodes, name, rest = sentinels(url)
        found = module.sentinel.Sentinel(nodes, sentinel_kwargs=dict(options), **options)
        return found.master_for(name, **rest)
    plain = for_redis_py(url)
    if plain.startswith("unix:"):
        return module.Redis.from_url(plain, **options)
    return module.Redis.from_url(plain, socket_keepalive=True, **options)


def everyone(client: Any) -> list[Any]:
    """A client, and those of the Sentinels that it asks, which it does not close."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    return [client, *(manager.sentinels if manager is not None else ())]
