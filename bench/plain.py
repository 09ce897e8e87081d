"""The plain pattern: what a team writes first, and what mailgate is compared with.

A Celery task a message over Redis, Jinja and premailer for each, a connection for
each. It has what its authors would give it (compiled templates are kept, cssutils
is told to be quiet, no validation) and none of what mailgate adds.
"""

from __future__ import annotations

import logging
import os
import smtplib
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

import cssutils
import jinja2
from celery import Celery
from premailer import Premailer

from bench.workload import SENDER, TEMPLATES

QUEUE = "plain"

app = Celery("plain", broker=os.environ.get("PLAIN_BROKER"))
app.conf.update(
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
)

cssutils.log.setLevel(logging.CRITICAL)
_jinja = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
_jinja.filters["url"] = lambda value: value
_TEXT = jinja2.Environment().from_string(
    "Thank you, {{ name }}\n\nWe have your order {{ order }} and are packing it.\n\n"
    "{% for item in items %}{{ item.title }} ({{ item.url }})\n{{ item.detail }}\n"
    "{{ item.count }}  {{ item.price }}\n\n{% endfor %}Total {{ total }}\n\n"
    "See your order: {{ url }}\n"
)


@app.task(name="plain.send")
def send(message: dict[str, Any]) -> None:
    data = message["data"]
    name = message["template"]
    html = _jinja.get_template(f"{name}/en.html").render(data)
    html = Premailer(
        html,
        allow_network=False,
        disable_validation=True,
        strip_important=False,
        remove_classes=False,
        cssutils_logging_level=logging.CRITICAL,
    ).transform()
    mail = EmailMessage()
    mail["From"] = SENDER
    mail["To"] = ", ".join(message["to"])
    mail["Subject"] = _jinja.get_template(f"{name}/en.subject").render(data).strip()
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid(domain="shop.example")
    mail.set_content(_TEXT.render(data))
    mail.add_alternative(html, subtype="html")
    with smtplib.SMTP("127.0.0.1", int(os.environ["PLAIN_RELAY"])) as relay:
        relay.send_message(mail)
