"""The example readers whose clients can be had here, run as a stranger runs them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mailgate.config.shape import Config
from mailgate.events.document import Post
from mailgate.events.publisher import outlet
from tests.servers import Valkey, Vhost

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "events"
#: The event that the page shows, as it is published.
BODY = (
    (ROOT / "docs" / "events.md").read_text("utf-8").partition("```json\n")[2].partition("```")[0]
)
LINE = "bounced key:welcome-4711 ann@example.com"


async def tell(url: str) -> None:
    out = outlet(Config.model_validate({"intake": {"url": url}}))
    await out.send([Post(1, "e-1", "bounced", "shop", BODY.encode(), 1)])
    await out.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def begin(*command: str) -> subprocess.Popen[str]:
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path))
        return running[-1]

    yield begin
    for one in running:
        one.kill()
        one.wait(10)
        assert one.stdout is not None
        one.stdout.close()


async def test_a_reader_of_a_redis_stream(valkey: Valkey, program, tmp_path: Path) -> None:
    await tell(valkey.broker_url)
    for _ in range(2):
        reading = program(sys.executable, str(EXAMPLES / "redis_stream.py"), valkey.url, "shop")
        assert reading.stdout.readline().strip() == LINE
        # It goes on where it stopped, once it has kept its place.
        while not (tmp_path / "shop.position").exists():
            assert reading.poll() is None
        reading.kill()
        await tell(valkey.broker_url)


async def test_the_newest_events_in_the_shell(valkey: Valkey) -> None:
    await tell(valkey.broker_url)
    command = ["sh", str(EXAMPLES / "redis.sh"), valkey.url, "shop"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "welcome-4711" in done.stdout


async def test_a_reader_on_rabbitmq(rabbitmq: Vhost, program) -> None:
    await tell(rabbitmq.url)  # the exchange is there now
    part = urlsplit(rabbitmq.url)
    reading = program(
        sys.executable,
        str(EXAMPLES / "rabbitmq.py"),
        f"{part.hostname}:{part.port}",
        str(part.username),
        str(part.password),
        part.path[1:],
        "shop",
    )
    while not any(
        one["source"] == "mailgate.events" for one in rabbitmq.api("GET", "/api/bindings/{vhost}")
    ):
        assert reading.poll() is None
    await tell(rabbitmq.url)
    assert reading.stdout.readline().strip() == LINE
