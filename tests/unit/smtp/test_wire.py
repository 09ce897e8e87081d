"""What ``Wire`` leans on in aiosmtplib, which is pinned for its private names."""

from __future__ import annotations

import asyncio
import tomllib
from importlib.metadata import version
from pathlib import Path

from aiosmtplib.protocol import FlowControlMixin, SMTPProtocol

from mailgate.smtp.wire import Wire

ROOT = Path(__file__).parents[3]


def test_aiosmtplib_is_pinned_to_the_version_that_is_here() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"aiosmtplib=={version('aiosmtplib')}" in project["dependencies"]


async def test_the_private_names_that_the_wire_uses_exist() -> None:
    protocol = SMTPProtocol(loop=asyncio.get_running_loop())
    assert protocol._paused is False
    assert protocol._over_ssl is False
    assert protocol.transport is None
    assert protocol._loop is asyncio.get_running_loop()
    for name in ("pause_writing", "resume_writing", "connection_lost", "_drain_helper"):
        assert hasattr(FlowControlMixin, name)
    for name in ("data_received", "eof_received", "read_response", "start_tls", "is_connected"):
        assert name in vars(SMTPProtocol)


async def test_flow_control_is_recorded_by_the_name_that_the_wire_reads() -> None:
    wire = Wire(asyncio.get_running_loop())
    wire.pause_writing()
    assert wire._buffered
    wire.resume_writing()
    assert not wire._buffered
