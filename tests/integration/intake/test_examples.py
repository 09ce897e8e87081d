"""The publish examples whose clients can be had here, run as a stranger runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mailgate.contract import Submission, read
from mailgate.intake.doors import open_doors
from tests.servers import Valkey, Vhost

EXAMPLES = Path(__file__).parents[3] / "examples" / "publish"
MESSAGE = (EXAMPLES / "message.json").read_bytes()


def run(*command: str) -> None:
    program = sys.executable if command[0] == "python" else command[0]
    done = subprocess.run(
        [program, EXAMPLES / command[1], *command[2:]],
        input=MESSAGE,
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr.decode()


def accepted(body: bytes) -> None:
    message = read(body, max_bytes=10**6)
    assert isinstance(message, Submission)
    assert message.identity() == "welcome-4711"


@pytest.mark.parametrize(
    ("command", "door"),
    [
        (["python", "redis_stream.py"], 0),
        (["sh", "redis.sh", "stream"], 0),
        (["sh", "redis.sh", "list"], 1),
    ],
)
async def test_redis_examples(valkey: Valkey, opened, gather, command, door) -> None:
    run(*command, valkey.url)
    consumer = await opened(open_doors(valkey.broker_url, "mailgate.inbox")[door])
    [one] = await gather(consumer, 1)
    accepted(one.body)


@pytest.mark.parametrize("command", [["python", "rabbitmq.py"], ["sh", "rabbitmq.sh"]])
async def test_rabbitmq_examples(rabbitmq: Vhost, opened, gather, command) -> None:
    part = urlsplit(rabbitmq.url)
    [door] = open_doors(rabbitmq.url, "mailgate.inbox")
    await opened(door)
    while not rabbitmq.api("GET", "/api/queues/{vhost}"):
        await door.receive(1, 0.1)
    if command[0] == "python":
        host = f"{part.hostname}:{part.port}"
        run(*command, host, str(part.username), str(part.password), part.path[1:])
    else:
        run(*command, rabbitmq.url)
    [one] = await gather(door, 1)
    accepted(one.body)
