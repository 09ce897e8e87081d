"""One line a record; no address, no password, and nothing that leaves its line."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator

import pytest
import structlog

from mailgate import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the logging of the test run as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def start(format: log.Format = "json", level: str = "info", **more: bool) -> io.StringIO:
    stream = io.StringIO()
    log.configure(format, level, stream=stream, **more)
    return stream


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_line_of_json_with_time_level_and_logger():
    stream = start()
    structlog.stdlib.get_logger("mailgate.test").info("took", n=5, lane="high")
    (record,) = records(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", str(record.pop("time")))
    assert record == {
        "level": "info",
        "logger": "mailgate.test",
        "event": "took",
        "n": 5,
        "lane": "high",
    }


def test_a_record_is_one_line_of_pairs_on_the_console():
    stream = start("console")
    structlog.stdlib.get_logger("mailgate.test").warning("took 5", text="two words", n=5, q='a"b')
    line = stream.getvalue()
    assert line.endswith(' warning mailgate.test took 5 text="two words" n=5 q="a\\"b"\n')


DEFERRED = log.Disposition(
    "deferred",
    message_id=7,
    recipient_id=9,
    producer="billing",
    stream="transactional",
    relay="main",
    address="canary.person@example.com",
    attempts=2,
    duration_ms=1234,
    error_class="greylisted",
    code=451,
)


def test_a_disposition_is_one_line_with_the_domain_and_no_address():
    stream = start()
    log.dispositions([DEFERRED])
    (record,) = records(stream)
    assert "canary" not in stream.getvalue()
    del record["time"]
    assert record == {
        "level": "info",
        "logger": "mailgate.disposition",
        "event": "deferred",
        "message_id": 7,
        "recipient_id": 9,
        "producer": "billing",
        "stream": "transactional",
        "relay": "main",
        "domain": "example.com",
        "attempts": 2,
        "duration_ms": 1234,
        "error_class": "greylisted",
        "code": 451,
    }


@pytest.mark.parametrize("format", ["json", "console"])
def test_dispositions_read_the_same_by_the_short_way_and_by_the_long_way(format, monkeypatch):
    batch = [
        DEFERRED,
        DEFERRED._replace(event="sent", message_id="03essbj9mqry1", error_class="", code=0),
        DEFERRED._replace(stream="two words", relay="a=b", address="ann@xn--bcher-kva.example"),
        DEFERRED._replace(error_class="line\nend\x1b[31m \u202e", relay="ann@example.com"),
        DEFERRED._replace(address="ann@bücher.example"),
    ]
    short = start(format)
    log.dispositions(batch)
    monkeypatch.setattr(log._Direct, "serves", lambda self: False)
    long = start(format)
    log.dispositions(batch)
    told = [
        sorted(re.sub(r"\d{4}-[^ \"]*Z", "T", line) for line in s.getvalue().splitlines())
        for s in (short, long)
    ]
    assert told[0] == told[1]
    assert len(told[0]) == len(batch)


def test_dispositions_follow_level_handlers_and_context():
    stream = start(level="warning")
    log.dispositions([DEFERRED])
    assert not stream.getvalue()
    stream = start()
    with structlog.contextvars.bound_contextvars(lane="high"):
        log.dispositions([DEFERRED])
    assert records(stream)[0]["lane"] == "high"
    other = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(other))
    log.dispositions([DEFERRED])
    assert "deferred" in other.getvalue()


def test_many_dispositions_leave_in_writes_that_a_shared_pipe_keeps_together():
    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return super().write(text)

    writes: list[str] = []
    log.configure("console", stream=Pipe())
    log.dispositions([DEFERRED] * 100)
    assert sum(text.count("\n") for text in writes) == 100
    assert 1 < len(writes) < 20
    assert all(len(text) <= 4096 and text.endswith("\n") for text in writes)


@pytest.mark.parametrize(
    "address",
    [
        "canary@example.com",
        "ca.na+ry@mail.example.co.uk",
        "o'canary@example.com",
        '"canary person"@example.com',
        "bounce+canary=example.org@example.com",
        "cänary@exämple.de",
        "canary@[192.0.2.1]",
    ],
)
@pytest.mark.parametrize(
    "said",
    ["550 5.1.1 <{}>: no such user", "to={}", "mail for {}, thanks", "mailto:{}", "{}"],
)
def test_an_address_in_any_text_is_masked(address, said):
    masked = log.mask_text(said.format(address))
    local, _, domain = address.rpartition("@")
    assert local not in masked
    assert "anary" not in masked
    assert "änary" not in masked
    assert "ca.na" not in masked
    assert f"***@{domain}" in masked


def test_an_address_under_a_known_key_is_masked_however_it_is_written():
    stream = start()
    logger = structlog.stdlib.get_logger("t")
    logger.info("x", to=["Canary <canary@example.com>", "canary@localhost"], rcpt_to="canary")
    logger.info("x", data={"email": "canary@localhost", "deep": ["canary@example.com"]})
    assert "anary" not in stream.getvalue()
    assert records(stream)[0]["to"] == ["c***@example.com", "c***@localhost"]


def test_a_message_id_and_a_node_name_are_no_address():
    stream = start()
    structlog.stdlib.get_logger("t").info(
        "x", message_id="<1.a@example.com>", node="celery@mx.example"
    )
    (record,) = records(stream)
    assert (record["message_id"], record["node"]) == ("<1.a@example.com>", "celery@mx.example")


def test_passwords_are_masked_by_key_and_in_urls_even_when_addresses_are_shown():
    stream = start(show_addresses=True)
    logger = structlog.stdlib.get_logger("t")
    logger.info("at amqp://ann:hunter2@host/v", password="hunter2", to="ann@example.com")
    logger.info("x", relay={"api_token": "hunter2"}, url="redis://:hunter2@host")
    assert "hunter2" not in stream.getvalue()
    assert records(stream)[0]["to"] == "ann@example.com"


HOSTILE = [
    "a\n2026-01-01 error forged",
    "a\r\nb",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\u2028b\u2029c\x85d",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "\udcff\ud800",
    "\x00\x7f\x08",
]


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_value_can_forge_a_line_or_steer_a_terminal(format, hostile):
    stream = start(format)
    structlog.stdlib.get_logger("t").info(hostile, key=hostile, inner={hostile: [hostile]})
    logging.getLogger("library").warning("said %s", hostile, extra={"more": hostile})
    text = stream.getvalue()
    text.encode("utf-8")
    assert len(text.splitlines()) == 2
    assert text.count("\n") == 2
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", text
    )


def test_a_console_record_whose_text_looks_like_pairs_is_quoted():
    stream = start("console")
    structlog.stdlib.get_logger("t").info("x level=error")
    assert '"x level=error"' in stream.getvalue()


def test_a_traceback_is_in_the_line_and_masked():
    stream = start()
    try:
        raise ValueError("no canary@example.com\nhere")
    except ValueError:
        logging.getLogger("library").exception("failed")
        structlog.stdlib.get_logger("t").exception("failed")
    first, second = records(stream)
    for record in (first, second):
        assert "ValueError: no c***@example.com" in str(record["exception"])
    assert "canary" not in stream.getvalue()


def test_libraries_go_through_the_same_formatting():
    own = logging.StreamHandler(io.StringIO())
    loud = logging.getLogger("uvicorn.error")
    loud.addHandler(own)
    loud.propagate = False
    stream = start()
    loud.info("Started", extra={"color_message": "\x1b[36mStarted\x1b[0m"})
    logging.getLogger("celery.worker").info("canary@example.com ready")
    logging.getLogger("mail.log").info("MAIL FROM:<canary@example.com>")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
    started, ready, warned = records(stream)
    assert started["event"] == "Started"
    assert "color_message" not in started
    assert ready["event"] == "c***@example.com ready"
    assert "mind the gap" in str(warned["event"])
    assert own.stream.getvalue() == ""


def test_what_is_below_the_level_is_not_written():
    stream = start(level="warning")
    structlog.stdlib.get_logger("t").info("no")
    logging.getLogger("library").info("no")
    structlog.stdlib.get_logger("t").warning("yes")
    assert [record["event"] for record in records(stream)] == ["yes"]


def test_a_logger_made_before_the_set_up_follows_it():
    logger = structlog.stdlib.get_logger("early")
    first = start()
    logger.info("one")
    second = start("console")
    logger.info("two", lane="high")
    assert records(first)[0]["event"] == "one"
    assert "two lane=high" in second.getvalue()


def test_what_is_no_plain_value_is_written_as_text():
    stream = start()
    structlog.stdlib.get_logger("t").info("x", raw=b"\xff<canary@example.com>", kind=ValueError)
    (record,) = records(stream)
    assert record["raw"] == "\ufffd<c***@example.com>"
    assert record["kind"] == "<class 'ValueError'>"
