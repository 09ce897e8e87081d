"""The Django and the Flask example, each started as its README says."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from mailgate.client import Client
from tests.acceptance.stage import until
from tests.examples.conftest import Town
from tests.servers import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
GUIDE = EXAMPLES.parent / "docs" / "clients.md"


def mails_to(town: Town, address: str) -> list[dict[str, Any]]:
    return [mail for mail in town.inbox() if address in mail["rcpt_to"]]


def letter(town: Town, address: str) -> str:
    """The source of the newest mail to an address, once it has come."""
    until(lambda: bool(mails_to(town, address)), 30, lambda: str(town.inbox()))
    newest = max(mails_to(town, address), key=lambda mail: int(mail["id"]))
    source = httpx.get(f"{town.page}api/mails/{newest['id']}/source", timeout=10).content
    return source.decode().replace("=\r\n", "").replace("=3D", "=")


def serving(port: int) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/", timeout=5).status_code < 500
        except httpx.TransportError:
            return False

    return look


def test_django_signs_up_resets_passwords_and_hears_feedback(town: Town) -> None:
    names = {"MAILGATE_URL": town.url, "FORUM_DATABASE": str(town.directory / "forum.db")}
    here = EXAMPLES / "django"
    manage = [sys.executable, str(here / "manage.py")]
    migrate = town.program([*manage, "migrate", "--verbosity", "0"], here, names)
    assert migrate.wait(60) == 0, migrate.tail()
    port = free_port()
    server = town.program([*manage, "runserver", "--noreload", str(port)], here, names)
    until(serving(port), 30, server.tail)

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as browser:

        def submit(path: str, **fields: str) -> str:
            browser.get(path)
            token = browser.cookies["csrftoken"]
            reply = browser.post(path, data={"csrfmiddlewaretoken": token, **fields})
            assert reply.status_code == 200, server.tail()
            return reply.text

        def link(address: str, path: str) -> str:
            found = re.search(rf"http://127\.0\.0\.1:{port}({path}[\w/-]+)", letter(town, address))
            assert found
            return found[1]

        password = "correct horse battery"
        said = {"username": "ann", "password1": password, "password2": password}
        assert "look into your mailbox" in submit("/sign-up/", email="ann@forum.example", **said)
        path = link("ann@forum.example", "/activate/")
        assert "Hello, ann." in browser.get(path).text
        assert browser.get(path).status_code == 410

        # A name that is taken is no sign-up: nothing is sent.
        assert "already exists" in submit("/sign-up/", email="eve@forum.example", **said)

        submit("/accounts/password_reset/", email="ann@forum.example")
        until(lambda: len(mails_to(town, "ann@forum.example")) == 2, 30, server.tail)
        assert "Password reset on" in letter(town, "ann@forum.example")
        assert browser.get(link("ann@forum.example", "/accounts/reset/")).status_code == 200

        assert "We have your message" in submit("/feedback/", subject="Nice", message="Well done")
        assert "Well done" in letter(town, "admin@example.com")
    assert mails_to(town, "eve@forum.example") == []


def test_flask_takes_contacts_and_sends_now_and_later(town: Town) -> None:
    port = free_port()
    names = {"MAILGATE_URL": town.url, "FLASK_APP": "app", "SITE_DELAY": "3"}
    flask = [sys.executable, "-m", "flask", "run", "--port", str(port)]
    server = town.program(flask, EXAMPLES / "flask", names)
    until(serving(port), 30, server.tail)

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as browser:
        said = {"name": "Zoë", "email": "zoe@example.com", "message": "Do you ship?"}
        assert browser.post("/contact", data=said).status_code == 200
        source = letter(town, "team@example.com")
        assert "zoe@example.com" in re.findall(r"(?im)^reply-to: .*$", source)[0]
        wrong = browser.post("/contact", data={**said, "email": "zoe"})
        assert (wrong.status_code, "reply_to" in wrong.text) == (400, True)

        def send(to: str, when: str) -> str:
            reply = browser.post("/send", data={"to": to, "text": "Hello", "when": when})
            assert reply.status_code == 302, server.tail()
            return reply.headers["location"]

        def state(page: str) -> str:
            return str(browser.get(f"{page}/state").json()["state"])

        later = send("later@example.com", "in one minute")
        never = send("never@example.com", "in one minute")
        now = send("now@example.com", "now")
        asked = time.monotonic()
        until(lambda: state(now) == "sent", 15, server.tail)
        assert "state" in browser.get(later).text
        if time.monotonic() - asked < 2:
            assert state(later) == "queued"
        browser.post(f"{never}/cancel")
        until(lambda: state(never) == "cancelled", 15, server.tail)
        until(lambda: state(later) == "sent", 15, server.tail)
    assert len(mails_to(town, "later@example.com")) == len(mails_to(town, "now@example.com")) == 1
    assert mails_to(town, "never@example.com") == []


def test_the_guides_words_with_a_gateway(town: Town, capsys: Any) -> None:
    examples = re.findall(r"gateway -->\n```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(examples) == 2
    given = "from mailgate.client import Client, Message"
    with Client(town.url, producer="guide") as mail:
        assert list(mail.events(timeout=0.1)) == []
        space: dict[str, Any] = {"mail": mail}
        exec(given, space)
        for code in examples:
            exec(compile(code, GUIDE, "exec", dont_inherit=True), space)
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == ["queued", "sent", "too_late"]
    assert "accepted invoice-4711 None" in said
    assert "sent invoice-4711 ann@example.com" in said
