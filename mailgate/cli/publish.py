"""``mailgate send``: publish one message, for trying out and for scripts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mailgate.cli import completing
from mailgate.cli.setting import complain, fail, read_file, setting


def send(
    to: Annotated[list[str] | None, typer.Option(help="Recipient; repeatable.")] = None,
    template: Annotated[
        str | None, typer.Option(help="A template's name.", autocompletion=completing.templates)
    ] = None,
    data: Annotated[str | None, typer.Option(help="The template's data as a JSON object.")] = None,
    subject: Annotated[str | None, typer.Option(help="Subject, without a template.")] = None,
    text: Annotated[str | None, typer.Option(help="Plain text, without a template.")] = None,
    stream: Annotated[
        str | None,
        typer.Option(help="The stream; the default's else.", autocompletion=completing.streams),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A whole message as JSON; - for standard input.")
    ] = None,
) -> None:
    """Publish one message on the queue, as any producer would.

    It is checked first; what is wrong with it is said here instead of being parked.

        mailgate send --to ann@example.com --template notice
            --data '{"title": "Hello", "body": "It works."}'
    """
    from mailgate.client import Client, NotPublished
    from mailgate.config.urls import is_redis
    from mailgate.contract.read import Refusal, read

    config = setting.config()
    if file is not None:
        body = sys.stdin.buffer.read() if str(file) == "-" else read_file(file)
    else:
        body = json.dumps(_document(to, template, data, subject, text, stream, key)).encode()
    found = read(body, max_bytes=config.intake.max_bytes)
    if isinstance(found, Refusal):
        for fault in found.faults:
            complain(str(fault))
        raise typer.Exit(2)
    url = config.intake.url or config.broker.url or ""
    # A Redis stream may be there before mailgate is; RabbitMQ would drop the message.
    there = not is_redis(url)
    with Client(url, queue=config.intake.queue, validate=False, mandatory=there) as client:
        try:
            receipt = client.publish(json.loads(body), deadline=1.0)
        except NotPublished as error:
            fail(f"the broker did not take it: {error}")
    print(f"published on {receipt.where}")


def _document(
    to: list[str] | None,
    template: str | None,
    data: str | None,
    subject: str | None,
    text: str | None,
    stream: str | None,
    key: str | None,
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "to": to,
        "template": template,
        "subject": subject,
        "text": text,
        "stream": stream,
        "idempotency_key": key,
    }
    if data is not None:
        try:
            said["data"] = json.loads(data)
        except ValueError as error:
            fail(f"--data is not JSON: {error}", 2)
    return {name: value for name, value in said.items() if value is not None}
