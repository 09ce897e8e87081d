"""The recipes of "Who may publish", against real brokers: what each user may and may not."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path
from typing import Any

import amqp
import pytest
import redis

from mailgate.amqp_servers import servers
from mailgate.intake.amqp_link import connection
from mailgate.intake.doors import open_doors

OWN = {"mailgate.inbox.billing": "billing", "mailgate.inbox.shop": "shop"}


def user(rabbitmq: Any, name: str, write: str) -> str:
    """What ``rabbitmqctl add_user`` and ``set_permissions`` do; the user's URL."""
    login = f"{rabbitmq.name}-{name}"
    rabbitmq.api("PUT", f"/api/users/{login}", {"password": "pw", "tags": ""})
    may = {"configure": "^$", "write": write, "read": "^$"}
    rabbitmq.api("PUT", f"/api/permissions/{{vhost}}/{login}", may)
    return str(rabbitmq.url).replace(f"//{rabbitmq.name}:secret@", f"//{login}:pw@")


def publish(url: str, exchange: str, key: str = "", **properties: Any) -> None:
    with connection(*servers(url)) as made:
        channel = made.channel()
        channel.confirm_select()
        message = amqp.Message(b"{}", **properties)
        channel.basic_publish_confirm(message, exchange, key, mandatory=True)


@pytest.fixture
def billing(rabbitmq):
    yield user(rabbitmq, "billing", r"^mailgate\.inbox\.billing$")
    rabbitmq.api("DELETE", f"/api/users/{rabbitmq.name}-billing")


@pytest.fixture
def shared(rabbitmq):
    yield user(rabbitmq, "shared", r"^amq\.default$")
    rabbitmq.api("DELETE", f"/api/users/{rabbitmq.name}-shared")


async def stand(rabbitmq: Any, *queues: str) -> None:
    """Wait until the doors have made the queues, bound to their exchanges."""
    async with asyncio.timeout(20):
        for queue in queues:
            while not any(
                b["source"] == queue or queue == "mailgate.inbox"
                for b in rabbitmq.api("GET", "/api/bindings/{vhost}")
                if b["destination"] == queue
            ):
                await asyncio.sleep(0.05)


async def test_a_user_of_rabbitmq_publishes_to_its_own_queue_only(
    rabbitmq, billing, opened, gather
) -> None:
    doors = open_doors(rabbitmq.url, "mailgate.inbox", own=OWN)
    for door in doors:
        await opened(door)
    await stand(rabbitmq, "mailgate.inbox", *OWN)
    publish(billing, "mailgate.inbox.billing")
    [one] = await gather(doors[1], 1)
    assert (one.producer, one.body) == ("billing", b"{}")
    assert await doors[1].done([one])
    for exchange, key in (
        ("mailgate.inbox.shop", ""),
        ("", "mailgate.inbox.shop"),
        ("", "mailgate.inbox"),
    ):
        with pytest.raises(amqp.AccessRefused):
            publish(billing, exchange, key)


async def test_rabbitmq_refuses_the_user_id_of_another(rabbitmq, shared, opened, gather) -> None:
    [door] = open_doors(rabbitmq.url, "mailgate.inbox")
    await opened(door)
    await stand(rabbitmq, "mailgate.inbox")
    with pytest.raises(amqp.PreconditionFailed, match="user_id"):
        publish(shared, "", "mailgate.inbox", user_id=f"{rabbitmq.name}-billing")
    publish(shared, "", "mailgate.inbox", user_id=f"{rabbitmq.name}-shared")
    [one] = await gather(door, 1)
    assert (one.user_id, one.producer) == (f"{rabbitmq.name}-shared", None)


def acl() -> list[str]:
    """The rules of the operators' guide for the user billing."""
    guide = (Path(__file__).parents[3] / "docs" / "operators.md").read_text("utf-8")
    [line] = re.findall(r"(?m)^valkey-cli (ACL SETUSER billing reset .*)$", guide)
    return shlex.split(line)


async def test_a_user_of_redis_publishes_to_its_own_stream_and_list_only(
    valkey, opened, gather
) -> None:
    doors = open_doors(valkey.broker_url, "mailgate.inbox", own=OWN)
    for door in doors:
        await opened(door)
    with valkey.client() as admin:
        try:
            assert admin.execute_command(*acl())
            url = valkey.url.replace("redis://", "redis://billing:change-me@")
            with redis.Redis.from_url(url) as billing:
                billing.xadd("mailgate:inbox:billing", {"message": "{}"})
                billing.lpush("mailgate:inbox:billing:list", "[]")
                for key in ("mailgate:inbox", "mailgate:inbox:shop"):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        billing.xadd(key, {"message": "{}"})
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        billing.lpush(f"{key}:list", "{}")
                with pytest.raises(redis.exceptions.NoPermissionError):
                    billing.delete("mailgate:inbox:billing")
            for door, body in ((doors[2], b"{}"), (doors[3], b"[]")):
                [one] = await gather(door, 1)
                assert (one.producer, one.body) == ("billing", body)
                assert await door.done([one])
        finally:
            admin.execute_command("ACL", "DELUSER", "billing")
