"""The studio over HTTP, and as a program."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.integration.studio.bench import RunningStudio, write_template
from tests.servers.process import free_port

ORDER = {"template": "parcel", "data": '{"name": "Ann", "url": "https://shop.example/1"}'}


def test_the_mail_is_what_a_worker_would_send(studio: RunningStudio):
    with studio.client() as client:
        made = client.post("/api/renderings", json={**ORDER, "locale": "de"}).json()
        assert (made["faults"], made["problem"]) == ([], "")
        headers = dict(made["headers"])
        assert headers["Subject"] == "Ein Paket für Ann"
        assert headers["From"] == "mailgate <noreply@mailgate.localhost>"
        assert "List-Unsubscribe" not in headers
        file = client.get(f"/api/renderings/{made['id']}/source")
        assert file.text == made["source"]
        assert made["size"]["mail"] == len(file.content)
        assert "attachment" in file.headers["content-disposition"]
        marketing = client.post("/api/renderings", json={**ORDER, "unsubscribe": True}).json()
        assert "List-Unsubscribe" in dict(marketing["headers"])


def test_the_frame_has_neither_scripts_nor_an_origin(studio: RunningStudio, template: Path):
    with studio.client() as client:
        made = client.post("/api/renderings", json=ORDER).json()
        framed = client.get(f"/api/renderings/{made['id']}/html")
        policy = framed.headers["content-security-policy"]
        assert policy.startswith("sandbox allow-popups")
        assert "allow-scripts" not in policy
        assert "allow-same-origin" not in policy
        assert '<base target="_blank">' in framed.text
        assert client.get("/api/renderings/0000/html").status_code == 404


@pytest.mark.parametrize(
    ("data", "field", "rule"),
    [
        ("{", "", "is not JSON: Expecting property name enclosed in double quotes"),
        ('{"name": "A", "name": "B", "url": "https://x"}', "name", "is given more than once"),
        ('{"name": NaN, "url": "https://x"}', "name", "is NaN, which JSON does not have"),
        ("[]", "data", "must be an object"),
        ('{"name": "A"}', "data.url", "missing variable"),
    ],
)
def test_faults_of_the_data_are_named_as_for_producers(studio, data, field, rule):
    with studio.client() as client:
        made = client.post("/api/renderings", json={**ORDER, "data": data}).json()
    assert "id" not in made
    (fault,) = made["faults"]
    assert fault["field"] == field
    assert fault["rule"].startswith(rule)


def test_a_template_that_cannot_be_rendered_is_a_problem_and_no_crash(studio, template: Path):
    with studio.client() as client:
        link = {**ORDER, "data": '{"name": "A", "url": "https://"}'}
        made = client.post("/api/renderings", json=link).json()
        assert made.get("id") or made["problem"]
        gone = client.post("/api/renderings", json={**ORDER, "template": "nothing"}).json()
        assert gone["faults"] == [{"field": "template", "rule": "unknown template"}]
        assert client.get("/api/templates/nothing").status_code == 404
        assert client.get("/api/templates/nothing/findings").json() == {"items": []}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"template": 1}', b'{"template": "a", "data": {}}', b"x" * 2**21]
)
def test_what_the_page_does_not_post_is_refused(studio, body):
    with studio.client() as client:
        for path in ("/api/renderings", "/api/send"):
            assert client.post(path, content=body).status_code == 400


def test_a_test_mail_needs_leave(open_studio):
    sending = {**ORDER, "to": "ann@example.com"}
    relays = {"main": {"host": "127.0.0.1", "port": free_port(), "security": "none"}}
    streams = {"transactional": {"from": "shop@example.com"}}
    with open_studio(relays=relays, streams=streams).client() as client:
        said = client.post("/api/send", json=sending).json()
        assert said["outcome"] == "refused"
        assert "studio.send_test" in said["reason"]
    allowed = open_studio(relays=relays, streams=streams, studio={"send_test": ["ann@example.com"]})
    with allowed.client() as client:
        for to in ("bob@example.com", "ann@example.com, bob@example.com", "ann@example.com\r\n."):
            said = client.post("/api/send", json={**sending, "to": to}).json()
            assert said["outcome"] == "refused", to
        faulty = client.post("/api/send", json={**sending, "data": "{}"}).json()
        assert faulty["outcome"] == "refused"
        assert [fault["field"] for fault in faulty["faults"]] == ["data.name", "data.url"]
        away = client.post("/api/send", json=sending).json()
        assert (away["outcome"], away["phase"]) == ("defer", "connect")
        assert "Connect call failed" in away["reply"]


def test_an_inbox_that_is_not_there_is_said_with_what_helps(open_studio):
    studio = open_studio(inbox={"smtp_port": free_port()})
    with studio.client() as client:
        said = client.post("/api/send", json={**ORDER, "to": "anyone@example.org"}).json()
    assert "mailgate inbox" in said["hint"]


def test_changes_are_told_as_they_happen(studio, template: Path):
    with studio.client() as client, client.stream("GET", "/api/changes") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        first = next(lines)
        (template / "en.subject").write_text("Changed")
        assert next(lines) != first
        assert dict(client.post("/api/renderings", json=ORDER).json()["headers"])["Subject"] == (
            "Changed"
        )


def test_a_root_that_goes_away_leaves_the_last_templates(studio, template: Path):
    away = template.parent.with_name("away")
    template.parent.rename(away)
    with studio.client() as client:
        deadline = time.monotonic() + 10
        while not (problem := client.get("/api/catalogue").json()["problem"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "is no directory" in problem
        assert "id" in client.post("/api/renderings", json=ORDER).json()
        away.rename(template.parent)
        while client.get("/api/catalogue").json()["problem"]:
            assert time.monotonic() < deadline + 10
            time.sleep(0.05)


def test_it_stops_while_a_page_is_open(studio: RunningStudio):
    with studio.client() as client, client.stream("GET", "/api/changes") as stream:
        next(stream.iter_lines())
        started = time.monotonic()
        studio.stop()
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_another_site_may_neither_render_nor_send(studio, headers):
    with studio.client() as client:
        for path in ("/api/renderings", "/api/send"):
            sending = {**ORDER, "to": "ann@example.com"}
            assert client.post(path, json=sending, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "path", ["/", "/assets/studio.js", "/frame/frame.css", "/api/catalogue", "/nowhere"]
)
def test_every_answer_says_how_it_may_be_used(studio, path):
    with studio.client() as client:
        headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "unsafe-inline" not in headers["content-security-policy"]
    assert "script-src 'self'" in headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/assets/%2e%2e/page.py", "/frame/..%2fguard.py"])
def test_only_the_assets_are_served(studio, path):
    with studio.client() as client:
        assert client.get(path).status_code == 404


def _program(tmp_path: Path, *options: str, config: str = "") -> subprocess.Popen[str]:
    (tmp_path / "mailgate.toml").write_text(config)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MAILGATE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "mailgate.cli.main", "studio", *options],
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_says_where_it_is_and_stops_when_told(tmp_path: Path):
    write_template(tmp_path / "mine")
    config = f"[templates]\npath = [{json.dumps(str(tmp_path / 'mine'))}]\n"
    # A password that this machine does not have only forbids sending.
    config += (
        "[relays.main]\nhost = 'smtp.example.com'\nusername = 'u'\npassword_env = 'NOT_SET'\n"
        "[streams.transactional]\nfrom = 'shop@example.com'\n"
        "[studio]\nsend_test = ['*@example.com']\n"
    )
    program = _program(tmp_path, "--port", "0", config=config)
    try:
        assert program.stdout is not None
        lines = [program.stdout.readline() for _ in range(3)]
        assert str(tmp_path / "mine") in lines[0]
        url = lines[2].removeprefix("studio: page ").strip()
        assert url.startswith("http://127.0.0.1:")
        # Reads and renders all templates, beside whatever else the machine does.
        found = httpx.get(f"{url}api/catalogue", timeout=30).json()
        assert "parcel" in [item["name"] for item in found["items"]]
        assert "NOT_SET" in found["send"]["why_not"]
    finally:
        program.send_signal(signal.SIGTERM)
        _, errors = program.communicate(timeout=15)
    assert (program.returncode, errors) == (0, "")


def test_a_port_that_is_taken_is_one_line(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        program = _program(tmp_path, "--port", port)
        _, errors = program.communicate(timeout=30)
    assert program.returncode == 1
    assert errors.startswith(f"mailgate: the studio cannot listen on 127.0.0.1:{port}: ")


def test_a_root_that_does_not_exist_is_wrong_configuration(tmp_path: Path):
    program = _program(tmp_path, "--port", "0", config="[templates]\npath = ['nowhere']\n")
    _, errors = program.communicate(timeout=30)
    assert program.returncode == 2
    assert "nowhere" in errors
