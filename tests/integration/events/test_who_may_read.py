"""The recipes of "Who may read", against real brokers: what each user may and may not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import amqp
import pytest
import redis

from mailgate.amqp_servers import servers
from mailgate.config.shape import Config
from mailgate.events.document import Post
from mailgate.events.publisher import outlet
from mailgate.intake.amqp_link import connection
from tests.servers import Valkey, Vhost

GUIDE = (Path(__file__).parents[3] / "docs" / "operators.md").read_text("utf-8")


def recipe(pattern: str) -> list[str]:
    """The words of the guide's one line that begins so, behind the beginning."""
    [line] = re.findall(rf"(?m)^{pattern} (.*)$", GUIDE.partition("**Who may read.**")[2])
    return shlex.split(line)


async def tell(url: str, *producers: str) -> None:
    out = outlet(Config.model_validate({"intake": {"url": url}}))
    posts = [Post(n, f"e-{n}", "sent", who, b"{}", 1) for n, who in enumerate(producers)]
    assert await out.send(posts) == frozenset()
    await out.close()


@pytest.fixture
def billing(rabbitmq: Vhost) -> Iterator[str]:
    """The URL of a user with the rights that the guide gives it."""
    login = f"{rabbitmq.name}-billing"
    rabbitmq.api("PUT", f"/api/users/{login}", {"password": "pw", "tags": ""})
    configure, write, read = recipe("rabbitmqctl set_permissions -p mailgate billing")
    may = {"configure": configure, "write": write, "read": read}
    rabbitmq.api("PUT", f"/api/permissions/{{vhost}}/{login}", may)
    exchange, write, read = recipe("rabbitmqctl set_topic_permissions -p mailgate billing")
    may = {"exchange": exchange, "write": write, "read": read}
    rabbitmq.api("PUT", f"/api/topic-permissions/{{vhost}}/{login}", may)
    yield rabbitmq.url.replace(f"//{rabbitmq.name}:secret@", f"//{login}:pw@")
    rabbitmq.api("DELETE", f"/api/users/{login}")


async def test_a_user_of_rabbitmq_reads_its_own_events_only(rabbitmq: Vhost, billing: str) -> None:
    await tell(rabbitmq.url, "shop")  # the exchange is there now
    queue = "billing.events"
    with connection(*servers(billing)) as made:
        channel = made.channel()
        channel.queue_declare(queue, durable=True, auto_delete=False)
        channel.queue_bind(queue, "mailgate.events", "billing.#")
        await tell(rabbitmq.url, "shop", "billing")
        message = channel.basic_get(queue)
        assert message.properties["message_id"] == "e-1"
    for key in ("shop.#", "#", "*.sent", "UNKNOWN.parked"):
        with connection(*servers(billing)) as made, pytest.raises(amqp.AccessRefused):
            made.channel().queue_bind(queue, "mailgate.events", key)
    with connection(*servers(billing)) as made, pytest.raises(amqp.AccessRefused):
        made.channel().queue_declare("shop.events", durable=True, auto_delete=False)
    with connection(*servers(billing)) as made:
        channel = made.channel()
        channel.confirm_select()
        with pytest.raises(amqp.AccessRefused):
            channel.basic_publish_confirm(amqp.Message(b"{}"), "mailgate.events", "billing.sent")


async def test_a_user_of_redis_reads_its_own_events_only(valkey: Valkey) -> None:
    await tell(valkey.broker_url, "billing", "shop")
    with valkey.client() as admin:
        try:
            admin.execute_command("ACL", "SETUSER", "billing", "reset", "on", ">pw")
            admin.execute_command(*recipe("valkey-cli"))
            url = valkey.url.replace("redis://", "redis://billing:pw@")
            own, other = "mailgate:events:billing", "mailgate:events:shop"
            with redis.Redis.from_url(url) as client:
                assert len(client.xread({own: "0"})[0][1]) == client.xlen(own) == 1
                assert len(client.xrevrange(own, count=1)) == len(client.xrange(own)) == 1
                for forbidden in (
                    lambda: client.xread({other: "0"}),
                    lambda: client.xrange("mailgate:events:UNKNOWN"),
                    lambda: client.xadd(own, {"event": "{}"}),
                    lambda: client.delete(own),
                ):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        forbidden()
        finally:
            admin.execute_command("ACL", "DELUSER", "billing")
