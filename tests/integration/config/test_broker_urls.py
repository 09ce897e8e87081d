"""The canonical spelling of a broker URL is one that Celery's transport connects with."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection
from redis import Redis

from mailgate.config import urls


@pytest.fixture
def socket() -> Iterator[Path]:
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        pytest.skip("no redis-server or valkey-server on the PATH")
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        path = Path(home) / "r.sock"
        command = [binary, "--port", "0", "--unixsocket", str(path), "--requirepass", "s3cret"]
        with subprocess.Popen([*command, "--save", ""], cwd=home, stdout=subprocess.DEVNULL) as run:
            deadline = time.monotonic() + 10
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            yield path
            run.terminate()


def test_a_socket_with_password_and_database_reaches_that_database(socket):
    with Connection(urls.broker(f"unix://:s3cret@{socket}?db=2")) as connection:
        queue = connection.SimpleQueue("ring")
        queue.put("x")
        queue.close()
    with Redis(unix_socket_path=str(socket), password="s3cret", db=2) as redis:
        assert redis.llen("ring") == 1
