"""Where the embedded parts are."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailgate.config.embedded import socket_path
from mailgate.config.urls import broker


def test_the_socket_lies_in_the_state_directory() -> None:
    assert socket_path(Path("/srv/mail/.mailgate")) == Path("/srv/mail/.mailgate/valkey.sock")


@pytest.mark.parametrize("name", ["sp ace", "a?b", "a#b", "50%", "a;b", "ü", "x" * 100])
def test_its_path_is_one_that_every_url_and_shell_takes(name: str) -> None:
    path = socket_path(Path("/srv") / name)
    assert path == socket_path(Path("/srv") / name) != socket_path(Path("/srv/other") / name)
    assert broker(f"redis+socket://{path}") == f"redis+socket://{path}"
