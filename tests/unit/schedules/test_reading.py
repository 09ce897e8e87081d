"""What schedules read: files and services, and what is refused of them."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from mailgate.config.schedules import DataReading, Reading, Schedule, Source
from mailgate.schedules import fetch as fetching
from mailgate.schedules.letters import LettersError, documents
from mailgate.schedules.reading import ReadingError, read

SINCE, UNTIL = 1_700_000_000_000, 1_700_086_400_000
PEOPLE = [{"email": "ann@example.org"}, {"email": "bob@example.org"}]


# --- files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("a.csv", "email,city\na@b.example,Oslo\n", [{"email": "a@b.example", "city": "Oslo"}]),
        ("a.csv", '\ufeffemail,x\r\na@b.c,"1,\n2"\r\n', [{"email": "a@b.c", "x": "1,\n2"}]),
        ("a.csv", "email\n", []),
        ("a.jsonl", '{"email": "a@b.c"}\n\n"b@b.c"\n', [{"email": "a@b.c"}, "b@b.c"]),
        ("a.json", '["a@b.c"]', ["a@b.c"]),
        ("a.json", '{"items": [1], "next": 2}', [1]),
    ],
)
def test_a_file_is_read(tmp_path: Path, name: str, text: str, rows: list[Any]) -> None:
    (tmp_path / name).write_text(text)
    assert read(Reading(file=tmp_path / name), {}, SINCE, UNTIL, 10) == rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"email,city\nann@example.org\n", "line 2 has not as many fields"),
        ("a.csv", b"email\na,b\n", "line 2 has not as many fields"),
        ("a.csv", b"email\n\xff\n", "can't decode"),
        ("a.json", b"{}", "holds no list"),
        ("a.json", b"[1", "is not JSON"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.jsonl", b'1\n2\n3\n"x', "is not JSON"),
        ("a.jsonl", b"1\n2\n3\n4\n", "has more than 3 rows"),
        ("a.csv", None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ReadingError, match=words):
        read(Reading(file=tmp_path / name), {}, SINCE, UNTIL, 3)


# --- services ----------------------------------------------------------------------------

Answer = Callable[[BaseHTTPRequestHandler], None]


class Service(ThreadingHTTPServer):
    """A service that answers what a test says, and remembers what it was asked."""

    daemon_threads = True
    answer: Answer
    asked: list[tuple[str, dict[str, str]]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.answer(self)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        server.answer = said(PEOPLE)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def said(
    document: object,
    *,
    status: int = 200,
    kind: str = "application/json; charset=utf-8",
    body: bytes | None = None,
    **headers: str,
) -> Answer:
    content = json.dumps(document).encode() if body is None else body

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        to.send_header("Content-Type", kind)
        length = headers.pop("Content_Length", str(len(content)))
        to.send_header("Content-Length", length)
        for name, value in headers.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(content)

    return answer


def ask(service: Service, path: str = "/people", most: int = 10, **options: Any) -> list[Any]:
    options = {"url": service.url, "private": True, "timeout": 2.0, **options}
    source = Source(**options)
    return read(Reading(source="api", path=path), {"api": source}, SINCE, UNTIL, most)


def test_a_service_is_asked_with_the_window_and_the_token(service: Service, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    assert ask(service, "people?list=a", url=f"{service.url}/api", token_file=token) == PEOPLE
    [(path, headers)] = service.asked
    asked = urlsplit(path)
    assert asked.path == "/api/people"
    assert parse_qs(asked.query) == {
        "list": ["a"],
        "since": ["2023-11-14T22:13:20Z"],
        "until": ["2023-11-15T22:13:20Z"],
    }
    assert headers["Authorization"] == "Bearer s3cret"
    service.answer = said({"items": PEOPLE})
    assert ask(service) == PEOPLE


def drips(to: BaseHTTPRequestHandler) -> None:
    """A byte now and then: each read succeeds in time, the whole never does."""
    try:
        for _ in range(100):
            to.wfile.write(b"H")
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said([], status=302, Location="http://169.254.169.254/"), "answers 302: redirects"),
        (said([], status=503), "answers 503"),
        (said([], kind="text/html"), "answers with text/html"),
        (said({"people": []}), "holds no list"),
        (said([], body=b"[1"), "is not JSON"),
        (said([], body=b'["' + b"x" * 3000 + b'"]'), "answers with more than 2048 bytes"),
        (said(PEOPLE * 6), "has more than 10 rows"),
        (said([], body=b"[1]", Content_Length="99"), "breaks off in the middle"),
        (lambda to: to.wfile.write(b"nonsense\r\n\r\n"), "BadStatusLine"),
        (lambda to: None, "RemoteDisconnected"),
        (lambda to: time.sleep(0.6), "gives no answer within 0.3 s"),
        (drips, "gives no answer within 0.3 s"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_used_says_why(
    service: Service, answer: Answer, words: str
) -> None:
    service.answer = answer
    begun = time.monotonic()
    with pytest.raises(ReadingError) as caught:
        ask(service, max_bytes=2048, timeout=0.3)
    assert words in str(caught.value)
    assert str(caught.value).startswith("source api: ")
    assert time.monotonic() - begun < 1.5
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("address", "private", "words"),
    [
        ("127.0.0.1", False, "which is not public"),
        ("10.1.2.3", False, "which is not public"),
        ("::1", False, "which is not public"),
        ("::ffff:192.168.1.1", False, "which is not public"),
        ("169.254.169.254", True, "which is never asked"),
        ("::ffff:169.254.169.254", True, "which is never asked"),
        ("fe80::1%eth0", True, "which is never asked"),
        ("0.0.0.0", True, "which is never asked"),
        ("224.0.0.1", True, "which is never asked"),
    ],
)
def test_a_name_that_leads_elsewhere_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, address: str, private: bool, words: str
) -> None:
    def resolved(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]

    def connect(*_: Any, **__: Any) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(fetching.socket, "getaddrinfo", resolved)
    monkeypatch.setattr(fetching.socket, "create_connection", connect)
    source = Source(url="http://api.example", private=private)
    with pytest.raises(ReadingError, match=words):
        read(Reading(source="a", path="/x"), {"a": source}, SINCE, UNTIL, 10)


def test_the_address_that_was_looked_at_is_asked_under_the_hosts_own_name(
    monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    """Resolved once: a second answer of the resolver's could lead elsewhere."""
    calls = []
    real = socket.getaddrinfo

    def resolved(host: str, *more: Any, **named: Any) -> list[Any]:
        calls.append(host)
        return list(real("127.0.0.1", *more, **named))

    monkeypatch.setattr(fetching.socket, "getaddrinfo", resolved)
    assert ask(service, url=f"http://crm.example:{service.server_port}") == PEOPLE
    assert "crm.example" in calls
    assert calls.count("crm.example") == 1
    [(_, headers)] = service.asked
    assert headers["Host"] == f"crm.example:{service.server_port}"


def test_a_services_certificate_is_verified_for_its_name(
    monkeypatch: pytest.MonkeyPatch, service: Service, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("crm.example").configure_cert(context)
    service.socket = context.wrap_socket(service.socket, server_side=True)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    real = socket.getaddrinfo
    monkeypatch.setattr(
        fetching.socket,
        "getaddrinfo",
        lambda _host, *more, **named: real("127.0.0.1", *more, **named),
    )
    with pytest.raises(ReadingError, match="SSLCertVerificationError"):
        ask(service, url=f"https://crm.example:{service.server_port}")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert ask(service, url=f"https://crm.example:{service.server_port}") == PEOPLE
    with pytest.raises(ReadingError, match="SSLCertVerificationError"):
        ask(service, url=f"https://other.example:{service.server_port}")
    assert len(service.asked) == 1


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: 1", "/ä"])
def test_a_path_that_would_break_the_request_is_refused(service: Service, path: str) -> None:
    with pytest.raises(ReadingError, match="percent-encoded"):
        ask(service, path)
    assert service.asked == []


# --- messages ----------------------------------------------------------------------------


def schedule(**changes: Any) -> Schedule:
    values = {"cron": "0 10 * * *", "template": "notice", "recipients": ("a@b.example",)}
    return Schedule(**{**values, **changes})


def made(people: list[Any], items: list[Any] | None = None, **changes: Any) -> list[Any]:
    found = documents("news", schedule(**changes), "blog", "bulk", UNTIL, people, items)
    return [json.loads(body) for _, body in found]


def test_columns_of_a_recipient() -> None:
    rows = [
        {"email": "a@b.example", "name": "", "city": "Oslo", "metadata": {"n": 1}},
        {"email": "b@b.example", "locale": "fr", "city": "Rome", "data": {"city": "Lyon"}},
        "c@b.example",
    ]
    [document] = made(rows)
    assert document["recipients"] == [
        {"email": "a@b.example", "metadata": {"n": 1}, "data": {"city": "Oslo"}},
        {"email": "b@b.example", "locale": "fr", "data": {"city": "Lyon"}},
        {"email": "c@b.example"},
    ]
    assert document["idempotency_key"] == "schedule:news:2023-11-15T22:13:20Z:0"


def test_rows_stand_under_their_name_beside_the_datas_own() -> None:
    reading = DataReading(file=Path("a.csv"), name="posts")
    [document] = made(["a@b.example"], [{"title": "t"}], data={"x": 1}, data_from=reading)
    assert document["data"] == {"x": 1, "posts": [{"title": "t"}]}


@pytest.mark.parametrize("row", [{"mail": "a@b.example"}, 7, None, ["a@b.example"]])
def test_a_row_without_an_email_is_named_by_its_place_alone(row: Any) -> None:
    with pytest.raises(LettersError, match=r"^recipient 2 has no email$"):
        made(["a@b.example", row])
