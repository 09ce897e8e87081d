"""Readiness, told the way systemd hears it (sd_notify): READY=1 on NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket


def ready() -> None:
    """Tell whoever started us that we are at work; nothing when nobody asked."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.connect(path)
        line.send(b"READY=1\n")
