"""The inbox over real SMTP and real HTTP."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from smtplib import SMTP, SMTPDataError

import pytest

from mailgate.config.shape import Inbox
from mailgate.studio.inbox import serve
from tests.integration.studio.inbox.conftest import PIXEL, RunningInbox


def test_a_mail_is_kept_byte_for_byte_with_its_envelope(inbox, sample):
    content = sample.plain("Grüße aus Köln")
    before = time.time_ns() // 1_000_000
    inbox.send(content, "bounce+1@example.com", "ann@example.com", "hidden@example.com")
    with inbox.client() as client:
        (mail,) = client.get("/api/mails").json()["items"]
        assert before <= mail.pop("received_at") <= time.time_ns() // 1_000_000
        assert mail == {
            "id": 1,
            "mail_from": "bounce+1@example.com",
            "rcpt_to": ["ann@example.com", "hidden@example.com"],
            "subject": "Grüße aus Köln",
            "from": "Example <app@example.com>",
            "to": "Ann Bell <ann@example.com>",
            "size": len(content),
        }
        assert client.get("/api/mails/1/source").content == content
    assert (inbox.directory / "1.eml").read_bytes() == content


def test_what_smtp_offers(inbox):
    with SMTP("127.0.0.1", inbox.smtp_port, timeout=10) as client:
        client.ehlo()
        assert {"size", "8bitmime", "smtputf8"} <= set(client.esmtp_features)
        client.sendmail("", ["ann@example.com"], b"Subject: null sender\r\n\r\nx")
        client.sendmail(
            "grüße@exämple.de",
            ["jürgen@exämple.de"],
            "Subject: für dich\r\n\r\nüber".encode(),
            mail_options=["SMTPUTF8", "BODY=8BITMIME"],
        )
    with inbox.client() as http:
        utf8, null = http.get("/api/mails").json()["items"]
    assert null["mail_from"] == ""
    assert utf8["mail_from"] == "grüße@exämple.de"
    assert utf8["subject"] == "für dich"


def test_the_parts_of_a_mail(inbox, sample):
    inbox.send(sample.rich('<p>Hi <img src="cid:logo@example.com"></p>'))
    with inbox.client() as client:
        mail = client.get("/api/mails/1").json()
        assert mail["html"] is True
        assert mail["text"].strip() == "The text."
        assert ["Subject", "Hello"] in mail["headers"]
        pixel, pdf = mail["attachments"]
        assert (pixel["content_type"], pixel["inline"], pixel["size"]) == (
            "image/png",
            True,
            len(PIXEL),
        )
        assert (pdf["filename"], pdf["inline"]) == ("Rechnung März.pdf", False)
        framed = client.get("/api/mails/1/html")
        assert "data:image/png;base64,iVBOR" in framed.text
        assert "cid:" not in framed.text
        policy = framed.headers["content-security-policy"]
        assert policy.startswith("sandbox allow-popups")
        assert "allow-scripts" not in policy
        assert "allow-same-origin" not in policy
        file = client.get("/api/mails/1/attachments/1")
        assert file.content == b"%PDF-1.4"
        assert file.headers["content-type"] == "application/octet-stream"
        assert file.headers["content-disposition"] == (
            "attachment; filename=\"Rechnung M_rz.pdf\"; filename*=UTF-8''Rechnung%20M%C3%A4rz.pdf"
        )
        assert client.get("/api/mails/1/attachments/2").status_code == 404


def test_search_finds_every_word_in_any_field(inbox, sample):
    inbox.send(sample.plain("Your invoice 100%"), "a@example.com", "ann@example.com")
    inbox.send(sample.plain("Your Passwort GRÜN"), "a@example.com", "bob@example.org")
    with inbox.client() as client:

        def found(query: str) -> list[int]:
            items = client.get("/api/mails", params={"q": query}).json()["items"]
            return [mail["id"] for mail in items]

        assert found("") == [2, 1]
        assert found("your") == [2, 1]
        assert found("YOUR bob@example.org") == [2]
        assert found("grün") == [2]
        assert found("100%") == [1]
        assert found("_") == []
        assert found("invoice bob") == []


def test_pages_of_the_list(inbox, sample):
    for number in range(5):
        inbox.send(sample.plain(str(number)))
    with inbox.client() as client:
        first = client.get("/api/mails", params={"limit": 2}).json()
        assert [mail["id"] for mail in first["items"]] == [5, 4]
        assert (first["matching"], first["total"]) == (5, 5)
        rest = client.get("/api/mails", params={"limit": "x", "before": 4}).json()["items"]
        assert [mail["id"] for mail in rest] == [3, 2, 1]


def test_nothing_new_is_a_304_and_a_new_mail_is_not(inbox, sample):
    with inbox.client() as client:
        etag = client.get("/api/mails").headers["etag"]
        assert client.get("/api/mails", headers={"If-None-Match": etag}).status_code == 304
        other = client.get("/api/mails", params={"q": "x"}, headers={"If-None-Match": etag})
        assert other.status_code == 200
        inbox.send(sample.plain())
        assert client.get("/api/mails", headers={"If-None-Match": etag}).status_code == 200


def test_delete_one_and_all(inbox, sample):
    for number in range(3):
        inbox.send(sample.plain(str(number)))
    with inbox.client() as client:
        assert client.delete("/api/mails/2").status_code == 204
        assert client.delete("/api/mails/2").status_code == 404
        assert client.get("/api/mails/2").status_code == 404
        assert client.get("/api/mails/2/source").status_code == 404
        assert [mail["id"] for mail in client.get("/api/mails").json()["items"]] == [3, 1]
        assert client.delete("/api/mails").json() == {"deleted": 2}
        assert client.get("/api/mails").json()["items"] == []
        assert list(inbox.directory.glob("*.eml")) == []
        inbox.send(sample.plain())
        assert [mail["id"] for mail in client.get("/api/mails").json()["items"]] == [4]


def test_only_the_newest_are_kept(tmp_path, sample):
    inbox = RunningInbox(tmp_path / "inbox", keep=3)
    try:
        for number in range(5):
            inbox.send(sample.plain(str(number)))
        with inbox.client() as client:
            assert [m["id"] for m in client.get("/api/mails").json()["items"]] == [5, 4, 3]
        assert {file.name for file in inbox.directory.glob("*.eml")} == {"3.eml", "4.eml", "5.eml"}
    finally:
        inbox.stop()


def test_a_restart_keeps_the_mails_and_sweeps_what_a_death_left(tmp_path, sample):
    inbox = RunningInbox(tmp_path / "inbox")
    inbox.send(sample.plain("one"))
    inbox.send(sample.plain("two"))
    inbox.stop()
    (inbox.directory / "77.eml").write_bytes(b"no row speaks of this")
    again = RunningInbox(tmp_path / "inbox", keep=1)
    try:
        with again.client() as client:
            (mail,) = client.get("/api/mails").json()["items"]
        assert (mail["id"], mail["subject"]) == (2, "two")
        assert [file.name for file in again.directory.glob("*.eml")] == ["2.eml"]
    finally:
        again.stop()


def test_a_full_disk_is_a_temporary_refusal(inbox, sample):
    inbox.directory.joinpath("1.eml").mkdir()  # stands where the file should go
    with pytest.raises(SMTPDataError) as refused:
        inbox.send(sample.plain())
    assert refused.value.smtp_code == 451
    with inbox.client() as client:
        assert client.get("/api/mails").json()["items"] == []


def test_many_clients_at_once(inbox, sample):
    def send(worker: int) -> None:
        with SMTP("127.0.0.1", inbox.smtp_port, timeout=30) as client:
            for number in range(20):
                body = sample.plain(f"{worker}-{number}")
                client.sendmail("a@example.com", ["b@example.com"], body)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(send, range(5)))
    with inbox.client() as client:
        items = client.get("/api/mails").json()["items"]
    assert {m["subject"] for m in items} == {f"{w}-{n}" for w in range(5) for n in range(20)}


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for said in ({"smtp_port": port, "http_port": 0}, {"smtp_port": 0, "http_port": port}):
            with pytest.raises(OSError, match="in use"):
                await serve(
                    Inbox.model_validate(said),
                    tmp_path,
                    on_ready=lambda *_: None,
                    stop=asyncio.Event(),
                )


def test_it_stops_while_clients_are_connected(inbox):
    with SMTP("127.0.0.1", inbox.smtp_port, timeout=10) as smtp, inbox.client() as http:
        smtp.ehlo()
        smtp.mail("a@example.com")
        http.get("/api/mails")
        started = time.monotonic()
        inbox.stop()
        assert time.monotonic() - started < 5
        smtp.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8025", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8025", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:8025", 403),
        ("evil.example@localhost", 403),
        ("localhost:x", 403),
        ("", 403),
    ],
)
def test_a_name_that_was_pointed_at_this_address_gets_nothing(inbox, host, status):
    with inbox.client() as client:
        assert client.get("/api/mails", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
    ],
)
def test_another_site_may_not_delete(inbox, headers, status):
    with inbox.client() as client:
        assert client.delete("/api/mails", headers=headers).status_code == status
        own = client.delete("/api/mails", headers={"Origin": inbox.url})
        assert own.status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/assets/inbox.js", "/frame/frame.js", "/api/mails", "/nowhere", "/api/mails/9"]
)
def test_every_answer_says_how_it_may_be_used(inbox, path):
    with inbox.client() as client:
        headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
    assert "unsafe-inline" not in headers["content-security-policy"]
    assert "script-src 'self'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../store.py",
        "/assets/%2e%2e/store.py",
        "/frame/%2e%2e/guard.py",
        "/assets/..%2f__init__.py",
    ],
)
def test_only_the_assets_are_served(inbox, path):
    with inbox.client() as client:
        assert client.get(path).status_code == 404
