"""A running inbox, and mails to put into it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP as SMTP_LINES
from pathlib import Path
from smtplib import SMTP

import httpx
import pytest

from mailgate.config.shape import Inbox
from mailgate.studio.inbox import serve

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763"
    "b067bb0300024f0111d4c4f8180000000049454e44ae426082"
)


class RunningInbox:
    """The inbox on an event loop in a thread of its own, on free ports."""

    def __init__(self, directory: Path, keep: int = 100) -> None:
        self.directory = directory
        self._settings = Inbox(smtp_port=0, http_port=0, keep=keep)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()

        def ready(smtp_port: int, http_port: int) -> None:
            self.smtp_port, self.http_port = smtp_port, http_port
            self._ready.set()

        await serve(self._settings, self.directory, on_ready=ready, stop=self._stop)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def send(self, content: bytes, mail_from: str = "app@example.com", *rcpt: str) -> None:
        with SMTP("127.0.0.1", self.smtp_port, timeout=10) as client:
            client.sendmail(mail_from, list(rcpt) or ["ann@example.com"], content)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=10)


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[RunningInbox]:
    running = RunningInbox(tmp_path / "inbox")
    yield running
    running.stop()


@dataclass(frozen=True)
class Sample:
    """Mails to look at."""

    @staticmethod
    def plain(subject: str = "Hello", text: str = "Good morning.\n") -> bytes:
        message = EmailMessage()
        message["From"] = "Example <app@example.com>"
        message["To"] = "Ann Bell <ann@example.com>"
        message["Subject"] = subject
        message.set_content(text)
        return message.as_bytes(policy=SMTP_LINES)

    @staticmethod
    def rich(html: str, subject: str = "Hello") -> bytes:
        message = EmailMessage()
        message["From"] = "Example <app@example.com>"
        message["To"] = "Ann Bell <ann@example.com>"
        message["Subject"] = subject
        message.set_content("The text.\n")
        message.add_alternative(html, subtype="html")
        html_part = message.get_payload()[1]  # type: ignore[index]
        html_part.add_related(PIXEL, "image", "png", cid="<logo@example.com>")  # type: ignore[union-attr]
        message.add_attachment(b"%PDF-1.4", "application", "pdf", filename="Rechnung März.pdf")
        return message.as_bytes(policy=SMTP_LINES)


@pytest.fixture
def sample() -> Sample:
    return Sample()
