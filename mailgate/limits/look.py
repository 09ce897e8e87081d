"""What a Redis or Valkey says of itself, for ``mailgate doctor``.

Owns which of its settings are read, and how far its clock is from ours. Never writes
a key, and never asks for CONFIG, which managed servers refuse: INFO tells the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from mailgate.limits.redis import clients


@dataclass(frozen=True, slots=True)
class RedisLook:
    """``ahead`` is the server's clock less ours (seconds); ``silent`` who did not answer.

    ``memory`` and ``most`` are bytes used and allowed; ``most`` is 0 without a bound.
    """

    program: str
    version: str
    policy: str
    keeps: bool
    keeps_badly: bool
    replica: bool
    memory: int
    most: int
    ahead: float
    silent: int = 0


async def look(url: str) -> RedisLook:
    """The first of the URLs joined by ``;`` that answers; raises ``OSError`` when none does."""
    faults: list[str] = []
    for client in clients(url):
        try:
            return await _asked(client, len(faults))
        except (RedisError, OSError) as error:
            faults.append(str(error) or type(error).__name__)
        finally:
            await client.aclose()
    raise OSError("; ".join(faults))


async def _asked(client: Redis, silent: int) -> RedisLook:
    server = await client.info("server")
    memory = await client.info("memory")
    kept = await client.info("persistence")
    replication = await client.info("replication")
    before = time.time()
    seconds, micros = await client.time()
    ours = (before + time.time()) / 2
    valkey = server.get("server_name") == "valkey"
    version = server.get("valkey_version" if valkey else "redis_version", "")
    written = kept.get("aof_last_write_status", "ok") == "ok"
    return RedisLook(
        program="Valkey" if valkey else "Redis",
        version=str(version),
        policy=str(memory.get("maxmemory_policy", "")),
        keeps=bool(kept.get("aof_enabled")),
        keeps_badly=bool(kept.get("aof_enabled")) and not written,
        replica=replication.get("role") != "master",
        memory=int(memory.get("used_memory", 0)),
        most=int(memory.get("maxmemory", 0)),
        ahead=seconds + micros / 1e6 - ours,
        silent=silent,
    )
